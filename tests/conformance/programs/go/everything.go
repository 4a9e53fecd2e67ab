// What every kind's program does, by the word `do`: `tests/conformance/kinds.py` lists it.

package main

import (
	"fmt"
	"os"
	"sort"
	"strings"
	"syscall"
	"time"
)

var count = 0

func Main(args map[string]interface{}) interface{} {
	count++
	text, _ := args["text"].(string)
	switch args["do"] {
	case "hello":
		return map[string]interface{}{"greeting": fmt.Sprintf("Hello, %s!", args["name"])}
	case "same":
		return map[string]interface{}{"value": args["value"]}
	case "unicode":
		fmt.Println(text)
		return map[string]interface{}{"winter": text + " ☃ " + text}
	case "env":
		found, keys := map[string]interface{}{}, []string{}
		for _, name := range args["names"].([]interface{}) {
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
		return map[string]interface{}{"env": found, "keys": keys}
	case "error":
		return map[string]interface{}{"error": map[string]interface{}{"code": 7}, "more": 1}
	case "throw":
		panic("boom")
	case "logs":
		for number := 1; number <= 2; number++ {
			fmt.Println("out", number)
			fmt.Fprintln(os.Stderr, "err", number)
		}
		return map[string]interface{}{}
	case "long":
		return map[string]interface{}{"text": strings.Repeat("x", int(args["bytes"].(float64)))}
	case "length":
		return map[string]interface{}{"length": len(text)}
	case "count":
		return map[string]interface{}{"count": count}
	case "die":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "sleep":
		time.Sleep(time.Minute)
	case "eat":
		for eaten := []string{}; ; {
			eaten = append(eaten, strings.Repeat("x", 8<<20))
			_ = eaten
		}
	case "number":
		return 5
	}
	return nil
}

func Other(args map[string]interface{}) map[string]interface{} {
	return map[string]interface{}{"by": "other"}
}
