//! One trace from a command to the daemon's log and to a collector of spans.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;

use banger_testkit::{Home, Options, Run, program};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use serde_json::Value;

use crate::support::home;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// Runs a command within a trace; it must succeed.
fn traced(home: &Home, args: &[&str]) {
    let mut command = home.command(args);
    command.env("TRACEPARENT", format!("00-{TRACE}-{PARENT}-01"));
    let run = Run::from(command.output().unwrap());
    assert_eq!(run.code, 0, "{args:?}: {}", run.err);
}

fn lines(home: &Home, args: &[&str]) -> Vec<Value> {
    home.ok(args).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_operation_and_its_lines_have_the_trace_of_the_command() {
    let home = home();
    traced(&home, &["vm", "create", "--name", "web"]);
    home.ok(&["vm", "stop", "web"]);
    home.ok(&["vm", "start", "web"]);
    let operations = home.json(&["operation", "list"]);
    let operations = operations.as_array().unwrap();
    let trace_of = |kind: &str| {
        let of_kind = operations.iter().find(|operation| operation["kind"] == kind);
        of_kind.unwrap()["trace"].as_str().unwrap().to_owned()
    };
    assert_eq!(trace_of("create"), TRACE);
    // Commands outside of a trace begin one of their own each.
    let (stop, start) = (trace_of("stop"), trace_of("start"));
    assert!(stop.len() == 32 && start.len() == 32 && stop != start, "{stop} {start}");
    let create = operations.iter().find(|operation| operation["kind"] == "create").unwrap();
    let id = create["id"].as_str().unwrap();
    assert!(home.ok(&["operation", "show", id]).contains(TRACE));
    let log = lines(&home, &["daemon", "logs", "--json", "--op", id]);
    assert!(log.iter().any(|line| line["message"] == "stage done"), "{log:?}");
    assert!(log.iter().all(|line| line["trace"] == TRACE), "{log:?}");
    // The trace outlives the daemon that began it.
    home.ok(&["daemon", "stop"]);
    assert!(home.ok(&["operation", "show", id]).contains(TRACE));
    home.ok(&["vm", "delete", "-f", "web"]);
    home.finish();
}

/// Answers each request of the exporter and passes its spans on.
fn collect(listener: TcpListener, to: mpsc::Sender<Span>) {
    let serve = |stream: TcpStream| -> std::io::Result<Vec<u8>> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let (mut length, mut first, mut kind) = (0, String::new(), String::new());
        reader.read_line(&mut first)?;
        assert_eq!(first, "POST /v1/traces HTTP/1.1\r\n");
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let line = line.trim_end().to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().unwrap(),
                Some(("content-type", value)) => kind = value.to_owned(),
                Some(_) => {}
                None => break,
            }
        }
        assert_eq!(kind, "application/x-protobuf");
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        (&stream).write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        Ok(body)
    };
    for stream in listener.incoming() {
        let request = ExportTraceServiceRequest::decode(&*serve(stream.unwrap()).unwrap()).unwrap();
        for resource in request.resource_spans {
            let service = &resource.resource.as_ref().unwrap().attributes;
            assert!(service.iter().any(|one| one.key == "service.name"), "{service:?}");
            for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                if to.send(span).is_err() {
                    return;
                }
            }
        }
    }
}

#[test]
fn a_collector_that_is_configured_receives_the_spans_of_a_trace() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (to, received) = mpsc::channel();
    std::thread::spawn(move || collect(listener, to));
    let home = configured(format!("[tracing]\notlp_endpoint = \"{endpoint}\""));
    traced(&home, &["vm", "create", "--name", "web"]);
    traced(&home, &["exec", "web", "true"]);
    home.ok(&["vm", "delete", "-f", "web"]);
    // The daemon sends the rest before it ends.
    home.ok(&["daemon", "stop"]);
    let trace: Vec<u8> = (0..16).map(|at| hex(&TRACE[2 * at..2 * at + 2])).collect();
    let mut spans: Vec<Span> = Vec::new();
    let [command, operation, request, stage] = loop {
        let wait = std::time::Duration::from_secs(60);
        spans.push(received.recv_timeout(wait).unwrap_or_else(|_| panic!("{spans:#?}")));
        if let Some(found) = family(&spans, &trace) {
            break found;
        }
    };
    let text = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(text(&command.parent_span_id), PARENT);
    assert_eq!(text(&request.parent_span_id), PARENT);
    assert!(stage.start_time_unix_nano >= operation.start_time_unix_nano);
    assert!(stage.end_time_unix_nano <= operation.end_time_unix_nano);
    home.finish();
}

/// A command, an operation, the request that led to it and one of its stages.
fn family(spans: &[Span], trace: &[u8]) -> Option<[Span; 4]> {
    let named: Vec<&Span> = spans.iter().filter(|span| span.trace_id == trace).collect();
    let find = |name: &str, is: &dyn Fn(&Span) -> bool| {
        named.iter().find(|span| span.name == name && is(span)).map(|span| (*span).clone())
    };
    let command = find("command", &|_| true)?;
    let operation = find("operation", &|one| {
        find("request", &|request| request.span_id == one.parent_span_id).is_some()
            && find("stage", &|stage| stage.parent_span_id == one.span_id).is_some()
    })?;
    let request = find("request", &|one| one.span_id == operation.parent_span_id)?;
    let stage = find("stage", &|one| one.parent_span_id == operation.span_id)?;
    Some([command, operation, request, stage])
}

/// A home with a simulated host and these lines in its configuration.
fn configured(config: String) -> Home {
    let env = vec![("BANGERD".into(), program("bangerd-sim").display().to_string())];
    Home::bare(Options { config, env, ..Options::default() })
}

fn hex(digits: &str) -> u8 {
    u8::from_str_radix(digits, 16).unwrap()
}

#[test]
fn what_is_no_collector_is_refused() {
    for url in
        ["https://127.0.0.1:4318", "http://me:secret@localhost:4318", "localhost", "http://x"]
    {
        let home = configured(format!("[tracing]\notlp_endpoint = \"{url}\""));
        let run = home.run(&["daemon", "start"]);
        assert_ne!(run.code, 0, "{url}");
        assert!(run.err.contains("is not a collector such as"), "{url}: {}", run.err);
        assert!(!run.err.contains("secret"), "{}", run.err);
    }
}
