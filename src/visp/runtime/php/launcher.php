<?php
// Runs a PHP action inside its container: JSON lines on standard input, replies as JSON lines on descriptor 3.
//
// The first line is init: {"value": {name, main, binary, code | folder, env}}. Every later line is a run body:
// {"value", "namespace", "action_name", "action_version", "activation_id", "transaction_id", "deadline", "api_key"?}.
// A reply is what the kind's official image answers: a plain line for 200, a line that begins with "!" for an error
// status. Standard output and error are the logs, written before the reply.

namespace Visp;

const MISSING = 'Missing main/no code to execute.';
const TWICE = 'Cannot initialize the action more than once.';
const NOT_FOUND = 'The action failed to generate or locate a binary. See logs for details.';
const NOT_A_DICTIONARY = 'The action did not return a dictionary or array.';
const NO_INDEX = 'Zipped actions must contain index.php at the root.';
const BROKEN = 'An error occurred running the action.';
const DEPTH = 100000;
const WRITTEN = JSON_UNESCAPED_UNICODE | JSON_UNESCAPED_SLASHES | JSON_PRESERVE_ZERO_FRACTION;
const FATAL = [E_ERROR, E_CORE_ERROR, E_COMPILE_ERROR, E_USER_ERROR, E_PARSE];

/** The two channels, and what the next reply is if the process ends instead of giving one. */
final class Wire
{
    private $lines;
    private $replies;
    public ?string $ofFatal = null;

    public function __construct()
    {
        // Descriptors of our own: programs that the action starts must not read lines from their standard input.
        $this->lines = \fopen('php://fd/0', 'rb');
        $this->replies = \fopen('php://fd/3', 'wb');
        \stream_set_write_buffer($this->replies, 0);
        \fclose(\STDIN);
        $GLOBALS['visp_stdin'] = \fopen('/dev/null', 'rb');
    }

    public function read(): string|false
    {
        return \fgets($this->lines);
    }

    public function write(string $line): void
    {
        $this->ofFatal = null;
        while (\ob_get_level() > 0) {
            \ob_end_flush();
        }
        \flush();
        $line .= "\n";
        for ($at = 0; $at < \strlen($line); $at += $written) {
            $written = \fwrite($this->replies, $at === 0 ? $line : \substr($line, $at));
            if ($written === false) {
                exit(0); // nobody listens any more
            }
        }
    }

    public function fail(string $sentence): void
    {
        $this->write(failed($sentence));
    }
}

function failed(string $sentence): string
{
    return '!' . \json_encode(['error' => $sentence], WRITTEN | JSON_INVALID_UTF8_SUBSTITUTE);
}

function complain(string $text): void
{
    \file_put_contents('php://stderr', $text . "\n");
}

// ── init ────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The name of the user's function; throws what the user's code throws, or \LookupFailed with what is missing. */
function load(array $value): string
{
    foreach ($value['env'] ?? [] as $name => $text) {
        show($name, $text);
    }
    if (isset($value['folder'])) {
        \chdir($value['folder']);
        if (!\is_file('index.php')) {
            throw new Missing(NO_INDEX);
        }
        $file = $value['folder'] . '/index.php';
    } elseif (\trim($value['code'] ?? '') === '') {
        throw new Missing(MISSING);
    } else {
        $file = \sys_get_temp_dir() . '/index.php';
        \file_put_contents($file, $value['code']);
    }
    $autoload = \dirname($file) . '/vendor/autoload.php';
    if (\is_file($autoload)) {
        bring($autoload);
    }
    bring($file);
    $main = ($value['main'] ?? '') ?: 'main';
    if (!\is_callable($main)) {
        throw new Missing("Function $main does not exist.");
    }
    return $main;
}

/** In a scope of its own. */
function bring(string $file): void
{
    require $file;
}

final class Missing extends \Exception
{
}

function init(array $value, Wire $wire): ?string
{
    try {
        $main = load($value);
    } catch (Missing $missing) {
        complain($missing->getMessage());
        $wire->fail($missing->getMessage());
        return null;
    } catch (\Throwable $error) {
        complain((string) $error);
        $wire->fail(NOT_FOUND);
        return null;
    }
    $wire->write('{"ok":true}');
    return $main;
}

// ── run ─────────────────────────────────────────────────────────────────────────────────────────────────────────

function show(string $name, mixed $value): void
{
    if (\is_string($value)) {
        $_ENV[$name] = $value;
        \putenv("$name=$value");
    }
}

/** The reply line for one run. What fails is told as the official image does: by a line that is no JSON. */
function run(string $main, array $message): string
{
    foreach ($message as $name => $value) {
        if ($name !== 'value') {
            show('__OW_' . \strtoupper($name), $value);
        }
    }
    try {
        return answer($main($message['value'] ?? []));
    } catch (\Throwable $error) {
        complain((string) $error);
        return failed(NOT_A_DICTIONARY);
    }
}

function answer(mixed $result): string
{
    if (\is_object($result) && \method_exists($result, 'getArrayCopy')) {
        $result = $result->getArrayCopy();
    }
    if ($result === null || $result === []) {
        return '{}';
    }
    if (!\is_array($result) && !$result instanceof \stdClass) {
        complain('Result must be an array but has type "' . \gettype($result) . '"');
        return failed(NOT_A_DICTIONARY);
    }
    return \json_encode($result, WRITTEN | JSON_THROW_ON_ERROR, DEPTH);
}

/** An init line that comes again: a run body says for which activation it is. */
function isInit(array $message): bool
{
    return \count($message) === 1 && isset($message['value']['name'], $message['value']['main'], $message['value']['env']);
}

function serve(Wire $wire): void
{
    $main = false;
    while (($line = $wire->read()) !== false) {
        $message = \json_decode($line, true, DEPTH) ?? [];
        $wire->ofFatal = $main === false ? NOT_FOUND : NOT_A_DICTIONARY;
        if ($main === false) {
            $main = init($message['value'] ?? [], $wire);
        } elseif (isInit($message)) {
            complain(TWICE);
            $wire->fail(TWICE);
        } elseif ($main === null) {
            $wire->fail('Cannot run: the action was not initialized.');
        } else {
            $wire->write(run($main, $message));
        }
    }
}

\putenv('VISP_COPIED'); // copies of this process go on in containers of their own, and differ in nothing that it knows
unset($_SERVER['VISP_COPIED'], $_ENV['VISP_COPIED']);
$wire = new Wire();
\register_shutdown_function(static function () use ($wire): void {
    $error = \error_get_last();
    if ($wire->ofFatal !== null && $error !== null && \in_array($error['type'], FATAL, true)) {
        complain(BROKEN);
        $wire->fail($wire->ofFatal);
    }
});
serve($wire);
