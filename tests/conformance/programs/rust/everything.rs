// What every kind's program does, by the word `do`: `tests/conformance/kinds.py` lists it.
extern crate serde_json;

use serde_json::{json, Error, Map, Value};
use std::sync::atomic::{AtomicUsize, Ordering};

static COUNT: AtomicUsize = AtomicUsize::new(0);

pub fn main(args: Value) -> Result<Value, Error> {
    let count = COUNT.fetch_add(1, Ordering::SeqCst) + 1;
    if let Value::Array(mut list) = args {
        list.reverse();
        return Ok(Value::Array(list));
    }
    let text = args["text"].as_str().unwrap_or("");
    Ok(match args["do"].as_str().unwrap_or("") {
        "hello" => json!({ "greeting": format!("Hello, {}!", args["name"].as_str().unwrap_or("")) }),
        "same" => json!({ "value": args["value"] }),
        "unicode" => {
            println!("{}", text);
            json!({ "winter": format!("{} ☃ {}", text, text) })
        }
        "env" => {
            let names = args["names"].as_array().cloned().unwrap_or_default();
            let found: Map<String, Value> = names
                .iter()
                .filter_map(Value::as_str)
                .map(|name| (name.to_string(), std::env::var(name).map_or(Value::Null, Value::String)))
                .collect();
            let mut keys: Vec<_> = args.as_object().unwrap().keys().collect();
            keys.sort();
            json!({ "env": found, "keys": keys })
        }
        "error" => json!({ "error": { "code": 7 }, "more": 1 }),
        "throw" => return Err(serde::de::Error::custom("boom")),
        "panic" => panic!("boom"),
        "logs" => {
            for number in 1..=2 {
                println!("out {}", number);
                eprintln!("err {}", number);
            }
            json!({})
        }
        "long" => json!({ "text": "x".repeat(args["bytes"].as_u64().unwrap_or(0) as usize) }),
        "length" => json!({ "length": text.len() }),
        "count" => json!({ "count": count }),
        "die" => std::process::abort(),
        "sleep" => {
            std::thread::sleep(std::time::Duration::from_secs(60));
            json!({})
        }
        "eat" => {
            let mut eaten = Vec::new();
            loop {
                eaten.push(vec![1u8; 8 << 20]);
                if eaten.len() == usize::MAX {
                    break json!({ "eaten": eaten.len() });
                }
            }
        }
        "number" => json!(5),
        _ => Value::Null,
    })
}

pub fn other(_args: Value) -> Result<Value, Error> {
    Ok(json!({ "by": "other" }))
}
