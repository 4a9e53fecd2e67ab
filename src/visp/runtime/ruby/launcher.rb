# Runs a Ruby action inside its container: JSON lines on standard input, replies as JSON lines on descriptor 3.
#
# The first line is init: {"value": {name, main, binary, code | folder, env}}. Every later line is a run body:
# {"value", "namespace", "action_name", "action_version", "activation_id", "transaction_id", "deadline", "api_key"?}.
# A reply is what the kind's official image answers: a plain line for 200, a line that begins with "!" for an error
# status. Standard output and error are the logs, flushed before each reply.
#
# Both channels move to descriptors that programs started by the action do not inherit.

require "json"

module VispLauncher
  F_DUPFD_CLOEXEC = 1030
  FIRST_PRIVATE = 100
  NESTING = { max_nesting: false }.freeze
  WRITTEN = { max_nesting: 0 }.freeze
  GEMS = "vendor/bundle"
  FILE = "/action/main.rb"
  TWICE = "Cannot initialize the action more than once."
  MISSING = "Missing main/no code to execute."
  NO_MAIN = "Invalid Ruby Code: zipped actions must contain main.rb at the root."
  NO_CACHE = "Invalid Binary: vendor/cache folder is not found. Please make sure you have used valid zip binary."
  UNREADABLE = "Invalid Ruby Code: failed to parse the input code"
  NO_METHOD = "Invalid Ruby Code: method checking failed / "
  NOT_A_DICTIONARY = "The action did not return a dictionary or array."
  UNSUCCESSFUL = "Invalid Action: the execution was not successful. / "
  ENDED = "Invalid Action: An error occurred running the action"

  class Missing < StandardError; end

  module_function

  def private_io(io, mode)
    moved = IO.for_fd(io.fcntl(F_DUPFD_CLOEXEC, FIRST_PRIVATE), mode)
    moved.binmode
    moved.sync = true
    moved
  end

  def write(line)
    $stdout.flush
    $stderr.flush
    STDOUT.flush
    @replies.write(line, "\n")
  end

  def failed(sentence)
    "!" + JSON.generate("error" => sentence.encode("UTF-8", invalid: :replace, undef: :replace).scrub)
  end

  def complain(error)
    STDERR.puts(error.is_a?(Exception) ? error.full_message(highlight: false) : error)
  end

  # ── init ──────────────────────────────────────────────────────────────────────────────────────────────────────

  # The user's method; raises what the user's code raises, or Missing with the sentence of the init error.
  def load(value)
    (value["env"] || {}).each { |name, text| ENV[name] = text }
    if value["folder"]
      load_folder(value["folder"])
    elsif (value["code"] || "").strip.empty?
      raise Missing, MISSING
    else
      RubyVM::InstructionSequence.compile(value["code"], FILE, FILE).eval
    end
    main = value["main"].to_s.empty? ? "main" : value["main"]
    TOPLEVEL_BINDING.receiver.method(main)
  end

  def load_folder(folder)
    Dir.chdir(folder)
    raise Missing, NO_MAIN unless File.file?("main.rb")

    bring_gems(folder) if File.file?("Gemfile")
    $LOAD_PATH.unshift(folder)
    Kernel.require(File.join(folder, "main.rb"))
  end

  # What the build has made of the archive's gems.
  def bring_gems(folder)
    raise Missing, NO_CACHE unless File.directory?(GEMS) || File.directory?("vendor/cache")

    ENV["BUNDLE_GEMFILE"] = File.join(folder, "Gemfile")
    ENV["BUNDLE_PATH"] = File.join(folder, GEMS)
    ENV["BUNDLE_FROZEN"] = "true" if File.file?("Gemfile.lock")
    Kernel.require("bundler/setup")
  end

  def init(value)
    found = load(value)
    write('{"ok":true}')
    found
  rescue Missing => e
    refuse(e.message, e.message)
  rescue NameError => e
    refuse(e, NO_METHOD + e.message)
  rescue SyntaxError => e
    refuse(e, UNREADABLE)
  rescue SystemExit, ScriptError, StandardError, NoMemoryError, SystemStackError => e
    refuse(e, NO_METHOD + "#{e.message} (#{e.class})")
  end

  def refuse(complaint, sentence)
    complain(complaint)
    write(failed(sentence))
    nil
  end

  # ── run ───────────────────────────────────────────────────────────────────────────────────────────────────────

  # The reply line for one run.
  def run(action, message)
    message.each { |name, value| ENV["__OW_#{name.upcase}"] = value if name != "value" && value.is_a?(String) }
    answer(action.call(message.fetch("value", {})))
  rescue SystemExit
    failed(ENDED)
  rescue ScriptError, StandardError, NoMemoryError, SystemStackError => e
    complain(e)
    failed(UNSUCCESSFUL + "#{e.message} (#{e.class})")
  end

  # Whatever becomes a JSON object or array is one.
  def answer(result)
    text = JSON.generate(result, WRITTEN)
    return text if text.start_with?("{", "[")

    complain("Result must be a Hash or an Array but has type '#{result.class}'")
    failed(NOT_A_DICTIONARY)
  end

  # An init line that comes again: a run body says for which activation it is.
  def init?(message)
    value = message["value"]
    message.size == 1 && value.is_a?(Hash) && %w[name main env].all? { |name| value.key?(name) }
  end

  def serve
    lines = private_io(STDIN, "r")
    replies = IO.for_fd(3)
    @replies = private_io(replies, "w")
    replies.close
    STDIN.reopen(File::NULL)
    STDOUT.sync = true
    line = lines.gets or return
    action = init(JSON.parse(line, NESTING)["value"])
    while (line = lines.gets)
      message = JSON.parse(line, NESTING)
      if init?(message)
        refuse(TWICE, TWICE)
      elsif action.nil?
        write(failed("Cannot run: the action was not initialized."))
      else
        write(run(action, message))
      end
    end
  end
end

ENV.delete("VISP_COPIED") # copies of this process go on in containers of their own, and differ in nothing that it knows
VispLauncher.serve
