package main

import (
	_ "embed"
	"os"

	"beside/word"
)

//go:embed data.txt
var data string

func Main(args map[string]interface{}) map[string]interface{} {
	_, err := os.Stat("exec")
	return map[string]interface{}{"beside": word.Say(), "data": data, "is_here": err == nil}
}
