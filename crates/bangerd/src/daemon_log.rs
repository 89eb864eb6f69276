//! The daemon's log for clients: filters lines by VM or operation, and adds VM and verb of the
//! operation to each line.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Map, Value};

/// Maximum number of operations whose VM and verb are remembered.
const MOST_OPERATIONS: usize = 10_000;

/// Filter of log lines.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Name or id of a VM.
    pub vm: Option<String>,
    /// Id of an operation.
    pub operation: Option<String>,
}

/// Filters lines, and adds VM and verb from earlier lines of the same operation.
#[derive(Default)]
pub struct Reader {
    wanted: Wanted,
    line: Vec<u8>,
    /// Verb, id and name of the VM, and trace, by operation.
    operations: BTreeMap<String, Map<String, Value>>,
    order: VecDeque<String>,
}

/// Maximum length of a line in bytes; longer lines are dropped.
const MAX_LINE: usize = 256 * 1024;

impl Reader {
    /// A reader without earlier lines.
    pub fn new(wanted: Wanted) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// Adds the next bytes of the log; returns the completed lines that match the filter, each with
    /// its newline.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let (head, tail) = rest.split_at(end);
            self.add(head);
            rest = tail.get(1..).unwrap_or_default();
            let line = std::mem::take(&mut self.line);
            lines.extend(self.read(&line));
        }
        self.add(rest);
        lines
    }

    fn add(&mut self, bytes: &[u8]) {
        if self.line.len() + bytes.len() <= MAX_LINE {
            self.line.extend_from_slice(bytes);
        }
    }

    fn read(&mut self, line: &[u8]) -> Option<String> {
        if line.is_empty() {
            return None;
        }
        let mut object = match serde_json::from_slice(line) {
            Ok(Value::Object(object)) => object,
            // Not JSON: standard error goes to the same file, such as a panic.
            _ => Map::from_iter([("message".into(), String::from_utf8_lossy(line).into())]),
        };
        // Of the span that a line is in, only the trace is news.
        if let Some(Value::Object(mut span)) = object.remove("span")
            && let Some(trace) = span.remove("trace")
        {
            object.entry("trace").or_insert(trace);
        }
        if let Some(op) = object.get("op").and_then(Value::as_str).map(str::to_owned) {
            if object.get("vm_name").is_some() {
                self.remember(op, &object);
            } else if let Some(known) = self.operations.get(&op) {
                for (key, value) in known {
                    object.entry(key.clone()).or_insert_with(|| value.clone());
                }
            }
        }
        self.wants(&object).then(|| Value::Object(object).to_string() + "\n")
    }

    fn remember(&mut self, op: String, object: &Map<String, Value>) {
        let about = ["kind", "vm", "vm_name", "trace"];
        let about = about.iter().filter_map(|key| Some(((*key).into(), object.get(*key)?.clone())));
        self.operations.insert(op.clone(), about.collect());
        self.order.push_back(op);
        if self.order.len() > MOST_OPERATIONS
            && let Some(oldest) = self.order.pop_front()
        {
            self.operations.remove(&oldest);
        }
    }

    fn wants(&self, object: &Map<String, Value>) -> bool {
        let is = |key: &str, wanted: &str| object.get(key).and_then(Value::as_str) == Some(wanted);
        let vm = self.wanted.vm.as_deref().is_none_or(|vm| is("vm", vm) || is("vm_name", vm));
        let operation = self.wanted.operation.as_deref().is_none_or(|op| is("op", op));
        vm && operation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = r#"{"message":"begin"}
{"op":"op-aaaaaa","kind":"start","vm":"0123456789ab","vm_name":"web","message":"operation"}
{"op":"op-aaaaaa","stage":"boot","ms":5,"message":"stage done"}
thread panicked
{"op":"op-bbbbbb","message":"other"}
{"vm":"0123456789ab","message":"adopted"}
"#;

    fn read(wanted: Wanted, cut: usize) -> Vec<String> {
        let mut reader = Reader::new(wanted);
        LOG.as_bytes().chunks(cut).flat_map(|piece| reader.push(piece)).collect()
    }

    #[test]
    fn lines_get_the_vm_of_their_operation_and_are_filtered() {
        for cut in [1, 7, 4096] {
            assert_eq!(read(Wanted::default(), cut).len(), 6, "{cut}");
            let of_web = |vm: &str| read(Wanted { vm: Some(vm.into()), operation: None }, cut);
            assert_eq!(of_web("0123456789ab").len(), 3);
            let named = of_web("web");
            let stage: Value = serde_json::from_str(&named[1]).unwrap();
            assert_eq!((&stage["kind"], &stage["vm_name"]), (&"start".into(), &"web".into()));
            let operation = Some("op-bbbbbb".into());
            assert_eq!(read(Wanted { vm: None, operation }, cut).len(), 1);
        }
        assert!(read(Wanted::default(), 9)[3].contains("thread panicked"));
    }

    #[test]
    fn every_line_of_an_operation_has_the_trace_of_its_request() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let first = serde_json::json!({
            "op": "op-aaaaaa", "vm_name": "web", "message": "operation",
            "span": { "name": "operation", "op": "op-aaaaaa", "trace": trace },
        });
        let later = serde_json::json!({ "op": "op-aaaaaa", "message": "of another task" });
        let mut reader = Reader::default();
        for line in reader.push(format!("{first}\n{later}\n").as_bytes()) {
            let line: Value = serde_json::from_str(&line).unwrap();
            assert_eq!((&line["trace"], &line["span"]), (&trace.into(), &Value::Null), "{line}");
        }
    }

    #[test]
    fn an_endless_line_is_dropped() {
        let mut reader = Reader::default();
        for _ in 0..100 {
            assert!(reader.push(&[b'x'; 64 * 1024]).is_empty());
        }
        assert!(reader.line.len() <= MAX_LINE);
    }
}
