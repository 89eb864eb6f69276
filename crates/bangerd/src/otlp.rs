//! Spans of requests, operations, stages and commands for a collector (OTLP over HTTP, Protobuf),
//! if the configuration names one. Without it nothing is recorded and nothing is sent.
//!
//! The exporter has a thread of its own and drops spans if the collector does not keep up: the
//! daemon never waits for it.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use async_trait::async_trait;
use banger_api::trace::TraceParent;
use banger_api::{ApiError, ErrorCode};
use hyper::body::Bytes;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::config::collector::Collector;
use crate::daemon::{BUILD_ID, VERSION};

/// Time limit for the collector to accept a connection, and for each read and write.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer of the collector, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// Sends spans to a collector.
#[derive(Clone)]
pub struct Export(SdkTracerProvider);

impl Export {
    /// Begins to send.
    ///
    /// # Errors
    /// The exporter cannot be made.
    pub fn begin(collector: &Collector) -> Result<Self, ApiError> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client { authority: collector.authority().to_owned() })
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{collector}/v1/traces"))
            .with_timeout(TIMEOUT)
            .build()
            .map_err(|error| {
                let text = format!("spans cannot be sent to `{collector}`");
                ApiError::new(ErrorCode::BadRequest, text).caused_by(&error)
            })?;
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", "bangerd"),
                KeyValue::new("service.version", VERSION),
                KeyValue::new("service.instance.id", BUILD_ID),
            ])
            .build();
        let provider =
            SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource);
        Ok(Self(provider.build()))
    }

    /// The layer that records spans.
    pub fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    {
        let tracer = self.0.tracer("bangerd");
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_location(false)
            .with_threads(false)
            .with_target(false)
    }

    /// Sends what is left, within [`TIMEOUT`].
    pub fn end(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(TIMEOUT) {
            tracing::warn!(error = %error, "spans were not sent");
        }
    }
}

/// Makes a span a part of the trace that its request belongs to.
pub fn set_parent(span: &Span, parent: &TraceParent) {
    let ids = (TraceId::from_hex(parent.trace.as_str()), SpanId::from_hex(&parent.span));
    let (Ok(trace), Ok(id)) = ids else { return };
    let flags = if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    let context = SpanContext::new(trace, id, flags, true, TraceState::default());
    // Fails where spans are not recorded.
    let _ = span.set_parent(Context::new().with_remote_span_context(context));
}

/// HTTP/1.1 without encryption, one connection for each request, on the thread of the exporter.
#[derive(Debug)]
struct Client {
    /// Host and port.
    authority: String,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        Ok(self.send(&request)?)
    }
}

impl Client {
    /// Sends a request and reads the status of the answer; its body is not needed.
    fn send(&self, request: &Request<Bytes>) -> std::io::Result<Response<Bytes>> {
        let bad = |text: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, text);
        let mut last = bad("the collector has no address");
        let mut stream = None;
        for address in self.authority.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, TIMEOUT) {
                Ok(connected) => stream = Some(connected),
                Err(error) => last = error,
            }
            if stream.is_some() {
                break;
            }
        }
        let Some(mut stream) = stream else { return Err(last) };
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let path = request.uri().path();
        let mut head = format!(
            "POST {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-length: {}\r\n",
            self.authority,
            request.body().len(),
        );
        for (name, value) in request.headers() {
            if let Ok(value) = value.to_str() {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        stream.write_all(request.body())?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer)?;
        let status = answer.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok());
        let status = status.and_then(|digits| digits.parse::<u16>().ok());
        let status = status.filter(|_| answer.starts_with(b"HTTP/1."));
        let status = status.ok_or_else(|| bad("the collector does not speak HTTP"))?;
        let answer = Response::builder().status(status).body(Bytes::new());
        answer.map_err(|_| bad("the collector answered with no status"))
    }
}
