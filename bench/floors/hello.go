// A hello as a compiled action: JSON lines in, JSON lines out on descriptor 3.
package main

import (
	"bufio"
	"encoding/json"
	"os"
)

func main() {
	out := os.NewFile(3, "replies")
	if os.Getenv("__OW_WAIT_FOR_ACK") != "" {
		out.WriteString("{\"ok\":true}\n")
	}
	in := bufio.NewReader(os.Stdin)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil {
			return
		}
		var message struct {
			Value struct {
				Name string `json:"name"`
			} `json:"value"`
		}
		json.Unmarshal(line, &message)
		reply, _ := json.Marshal(map[string]string{"greeting": "Hello, " + message.Value.Name})
		out.Write(append(reply, '\n'))
	}
}
