<?php

use Beside\Word;

function main(array $args): array
{
    return [
        'beside' => Word::say(),
        'data' => file_get_contents('data.txt'),
        'is_here' => is_file(getcwd() . '/data.txt'),
    ];
}
