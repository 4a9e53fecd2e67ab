<?php

spl_autoload_register(static function (string $class): void {
    if ($class === 'Beside\Word') {
        require __DIR__ . '/Word.php';
    }
});
