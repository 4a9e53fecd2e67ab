<?php
// What every kind's program does, by the word `do`: `tests/conformance/kinds.py` lists it.

$count = 0;

function main(array $args)
{
    global $count;
    $count++;
    if (array_is_list($args) && $args !== []) {
        return array_reverse($args);
    }
    $text = $args['text'] ?? '';
    switch ($args['do']) {
        case 'hello':
            return ['greeting' => "Hello, {$args['name']}!"];
        case 'same':
            return ['value' => $args['value']];
        case 'unicode':
            echo $text, "\n";
            return ['winter' => "$text ☃ $text"];
        case 'env':
            $found = array_map(fn ($name) => getenv($name) === false ? null : getenv($name), $args['names']);
            $keys = array_keys($args);
            sort($keys);
            return ['env' => array_combine($args['names'], $found), 'keys' => $keys];
        case 'error':
            return ['error' => ['code' => 7], 'more' => 1];
        case 'throw':
            throw new Exception('boom');
        case 'logs':
            foreach ([1, 2] as $number) {
                echo "out $number\n";
                file_put_contents('php://stderr', "err $number\n");
            }
            return [];
        case 'long':
            return ['text' => str_repeat('x', $args['bytes'])];
        case 'length':
            return ['length' => strlen($text)];
        case 'chance':
            return ['chance' => [mt_rand() . lcg_value(), bin2hex(random_bytes(8))]];
        case 'count':
            return ['count' => $count];
        case 'die':
            return posix_kill(getmypid(), 9);
        case 'sleep':
            sleep(60);
            return [];
        case 'eat':
            for ($eaten = [];;) {
                $eaten[] = str_repeat('x', 8 << 20);
            }
        case 'number':
            return 5;
        default:
            return null;
    }
}

function other(array $args): array
{
    return ['by' => 'other'];
}
