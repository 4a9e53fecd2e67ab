# What every kind's program does, by the word `do`: `tests/conformance/kinds.py` lists it.

require "securerandom"

$count = 0

def main(args)
  $count += 1
  return args.reverse if args.is_a?(Array)

  text = args["text"] || ""
  case args["do"]
  when "hello" then { greeting: "Hello, #{args["name"]}!" }
  when "same" then { value: args["value"] }
  when "unicode"
    puts text
    { winter: "#{text} ☃ #{text}" }
  when "env" then { env: args["names"].to_h { |name| [name, ENV[name]] }, keys: args.keys.sort }
  when "error" then { error: { code: 7 }, more: 1 }
  when "throw" then raise "boom"
  when "logs"
    [1, 2].each do |number|
      puts "out #{number}"
      warn "err #{number}"
    end
    {}
  when "long" then { text: "x" * args["bytes"] }
  when "length" then { length: text.length }
  when "chance" then { chance: [rand.to_s, SecureRandom.hex(8)] }
  when "count" then { count: $count }
  when "die" then Process.kill("KILL", Process.pid)
  when "sleep" then sleep(60)
  when "eat"
    eaten = []
    loop { eaten << ("x" * (8 << 20)) }
  when "number" then 5
  end
end

def other(_args)
  { by: "other" }
end
