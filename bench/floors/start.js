// The floor of a cold Node.js start: a script that writes one byte.
'use strict'

require('node:fs').writeSync(1, '.')
