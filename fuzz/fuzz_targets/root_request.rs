//! Any bytes as a request to the root helper: nothing may panic, and what is taken for a request
//! names a VM or nothing, and says the same again.
#![no_main]

use banger_root::protocol::{Launch, Request};
use banger_root::wire::decode;
use libfuzzer_sys::fuzz_target;

fn is_id(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fuzz_target!(|line: &[u8]| {
    if let Ok(request) = decode::<Request>(line) {
        let value = serde_json::to_value(&request).expect("a request is JSON");
        let vm = value.get("vm").map(|vm| vm.as_str().expect("an id is text"));
        assert!(vm.is_none_or(is_id), "{value}");
        assert_eq!(decode::<Request>(value.to_string().as_bytes()).ok(), Some(request));
    }
    if let Ok(launch) = decode::<Launch>(line) {
        let again = serde_json::to_vec(&launch).expect("a launch is JSON");
        assert_eq!(decode::<Launch>(&again).ok(), Some(launch));
    }
});
