require "beside"

def main(_args)
  { beside: Beside.word, data: File.read("data.txt"), is_here: File.exist?(File.join(Dir.pwd, "data.txt")) }
end
