<?php

namespace Beside;

final class Word
{
    public static function say(): string
    {
        return 'imported';
    }
}
