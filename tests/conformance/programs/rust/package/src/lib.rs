use serde_json::{json, Error, Value};

mod beside;

pub fn main(_args: Value) -> Result<Value, Error> {
    Ok(json!({ "beside": beside::word() }))
}
