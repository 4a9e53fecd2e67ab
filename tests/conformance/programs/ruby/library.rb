require "rexml/document"

def main(args)
  { made: REXML::Document.new(args["text"]).root.text }
end
