//! Any bytes as a DNS query: nothing may panic, grow, or be answered twice.
#![no_main]

use std::net::Ipv4Addr;

use bangerd::dns::Zone;
use bangerd::dns::answer::{Transport, UDP_BYTES, answer};
use libfuzzer_sys::fuzz_target;

/// One VM that runs.
struct Web;

impl Zone for Web {
    fn address(&self, label: &str) -> Option<Ipv4Addr> {
        (label == "web").then_some(Ipv4Addr::new(172, 16, 0, 7))
    }
}

fuzz_target!(|message: &[u8]| {
    for transport in [Transport::Udp { max: UDP_BYTES }, Transport::Tcp] {
        let Some(said) = answer(message, &Web, transport) else { continue };
        assert_eq!(said[..2], message[..2], "the id");
        assert!(said.len() <= usize::from(UDP_BYTES));
        assert!(answer(&said, &Web, transport).is_none(), "an answer is no query");
    }
});
