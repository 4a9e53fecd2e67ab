// What every kind's program does, by the word `do`, as a command of WASI: the last line printed is the result.

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"sort"
	"strings"
	"time"
)

func main() {
	var given any
	decoder := json.NewDecoder(os.Stdin)
	decoder.UseNumber()
	if err := decoder.Decode(&given); err != nil {
		panic(err)
	}
	if list, ok := given.([]any); ok {
		slices.Reverse(list)
		answer(list)
		return
	}
	args := given.(map[string]any)
	text, _ := args["text"].(string)
	switch args["do"] {
	case "hello":
		answer(map[string]any{"greeting": fmt.Sprintf("Hello, %s!", args["name"])})
	case "same":
		answer(map[string]any{"value": args["value"]})
	case "unicode":
		fmt.Println(text)
		answer(map[string]any{"winter": text + " ☃ " + text})
	case "env":
		found, keys := map[string]any{}, []string{}
		for _, name := range args["names"].([]any) {
			if value, ok := os.LookupEnv(name.(string)); ok {
				found[name.(string)] = value
			} else {
				found[name.(string)] = nil
			}
		}
		for key := range args {
			keys = append(keys, key)
		}
		sort.Strings(keys)
		answer(map[string]any{"env": found, "keys": keys})
	case "error":
		answer(map[string]any{"error": map[string]any{"code": 7}, "more": 1})
	case "throw":
		panic("boom")
	case "logs":
		for number := 1; number <= 2; number++ {
			fmt.Println("out", number)
			fmt.Fprintln(os.Stderr, "err", number)
		}
		answer(map[string]any{})
	case "long":
		bytes, _ := args["bytes"].(json.Number).Int64()
		answer(map[string]any{"text": strings.Repeat("x", int(bytes))})
	case "length":
		answer(map[string]any{"length": len(text)})
	case "sleep":
		time.Sleep(time.Minute)
	case "eat":
		for eaten := []string{}; ; {
			eaten = append(eaten, strings.Repeat("x", 8<<20))
			_ = eaten
		}
	case "number":
		fmt.Println(5)
	}
}

func answer(value any) {
	line, _ := json.Marshal(value)
	fmt.Println(string(line))
}
