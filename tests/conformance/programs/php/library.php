<?php

use Composer\Semver\Semver;

function main(array $args): array
{
    return ['made' => Semver::satisfies('1.2.3', $args['text'])];
}
