//! Logs, traces and metrics. One order is one trace. The trace context is stored in the outbox row and sent in the
//! record's headers. The consumer's span is both a child of it and linked to it.
//!
//! Spans follow the OpenTelemetry semantic conventions for messaging 1.36 (status: development). Without
//! `OTEL_EXPORTER_OTLP_ENDPOINT` no span is created, and the trace context is passed on unchanged.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::text;
use crate::trace::{self, Propagator};

static METRICS: OnceLock<PrometheusHandle> = OnceLock::new();

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line of text per entry, for people.
    Text,
    /// One JSON object per line, for programs.
    Json,
}

/// Exports the remaining spans when the process ends.
pub(crate) struct Guard(Option<SdkTracerProvider>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take() {
            // A missing collector must not delay the end of the service.
            let _ = provider.shutdown_with_timeout(std::time::Duration::from_secs(2));
        }
    }
}

/// Writes each log entry as one line of plain text, whatever strangers have put into a record's key, a name or a reason. A line
/// feed would forge an entry, and a terminal would obey an escape sequence.
///
/// The subscriber writes an entry with one call. The entry ends with a line feed.
struct OneLine<W>(W);

impl<W: io::Write> io::Write for OneLine<W> {
    fn write(&mut self, entry: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(entry);
        let (line, end) = match text.strip_suffix('\n') {
            Some(line) => (line, "\n"),
            None => (text.as_ref(), ""),
        };
        match text::line(line) {
            Cow::Borrowed(_) => self.0.write_all(entry)?,
            Cow::Owned(plain) => self.0.write_all((plain + end).as_bytes())?,
        }
        Ok(entry.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Sets up logs, traces and metrics of this process. The standard variables `RUST_LOG` and `OTEL_*` apply.
pub(crate) fn init(service: &'static str, format: LogFormat) -> Guard {
    let filter = filter(service);
    let logs = tracing_subscriber::fmt::layer().with_writer(|| OneLine(io::stderr())).with_target(false);
    let logs = match format {
        LogFormat::Text => logs.with_ansi(false).boxed(),
        LogFormat::Json => logs.json().flatten_event(true).boxed(),
    };
    let provider = exporter(service);
    let traces = provider
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("amends")));
    if provider.is_some() {
        trace::set_propagator(Box::new(OpenTelemetry));
    }
    // If there is a second call in one process, as in tests, the first one keeps its effect.
    let _ = tracing_subscriber::registry().with(traces).with(logs.with_filter(filter)).try_init();
    METRICS.get_or_init(|| recorder(service));
    Guard(provider)
}

/// Returns what `RUST_LOG` asks for, such as `info,shared::relay=debug`, and `info` without it.
///
/// The parts are targets and levels. A filter by spans and fields would need regular expressions, which no log here does.
fn filter(service: &'static str) -> Targets {
    let asked = std::env::var("RUST_LOG").ok().filter(|asked| !asked.is_empty());
    let read = asked.and_then(|asked| {
        let complain = |_: &_| {
            eprintln!("{service}: RUST_LOG is not a list like `info,shared::relay=debug`; the level is info");
        };
        asked.parse().inspect_err(complain).ok()
    });
    read.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO))
}

fn exporter(service: &'static str) -> Option<SdkTracerProvider> {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if !set("OTEL_EXPORTER_OTLP_ENDPOINT") && !set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
        return None;
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().build();
    let exporter = exporter
        .inspect_err(|error| {
            eprintln!("{service}: traces are off, the OTLP exporter can't be built: {error}")
        })
        .ok()?;
    let resource = Resource::builder().with_service_name(service).build();
    Some(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

fn recorder(service: &'static str) -> PrometheusHandle {
    const SECONDS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
    const COUNTS: &[f64] = &[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0];
    let builder = PrometheusBuilder::new().add_global_label("service", service);
    let builder = builder
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), SECONDS)
        .and_then(|builder| builder.set_buckets_for_metric(Matcher::Suffix("_messages".to_owned()), COUNTS))
        .unwrap_or_else(|_| PrometheusBuilder::new());
    let recorder = builder.build_recorder();
    let handle = recorder.handle();
    let _ = metrics::set_global_recorder(recorder);
    handle
}

/// Returns the metrics in the text format of Prometheus.
pub(crate) fn render_metrics() -> String {
    METRICS.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// Bounds the memory of histograms between scrapes.
pub(crate) fn upkeep() {
    if let Some(handle) = METRICS.get() {
        handle.run_upkeep();
    }
}

/// Connects spans to trace contexts through OpenTelemetry.
struct OpenTelemetry;

impl Propagator for OpenTelemetry {
    fn traceparent_of(&self, span: &Span) -> Option<String> {
        let mut carrier = HashMap::new();
        TraceContextPropagator::new().inject_context(&span.context(), &mut carrier);
        carrier.remove("traceparent")
    }

    fn adopt(&self, span: &Span, traceparent: &str) {
        let parent = context(traceparent);
        span.add_link(parent.span().span_context().clone());
        let _ = span.set_parent(parent);
    }
}

fn context(traceparent: &str) -> opentelemetry::Context {
    let carrier = HashMap::from([("traceparent".to_owned(), traceparent.to_owned())]);
    TraceContextPropagator::new().extract(&carrier)
}

/// Creates the span of a request.
pub(crate) fn request_span(method: &str, route: &str, traceparent: Option<&str>) -> Span {
    if !trace::enabled() {
        // The log shows this span, so that each entry names its request.
        return info_span!("request", method, route);
    }
    let span = info_span!(
        "request",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        http.request.method = method,
        http.route = route,
        http.response.status_code = tracing::field::Empty,
    );
    if let Some(traceparent) = traceparent {
        let _ = span.set_parent(context(traceparent));
    }
    span
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::{info, subscriber};

    use super::*;

    /// A log in memory.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no panic").write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Logs a stranger's text in every way that an entry can have it, and returns the log.
    fn logged(text: &str, format: LogFormat) -> String {
        let log = Log::default();
        let written = log.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || OneLine(written.clone()));
        let layer = match format {
            LogFormat::Text => layer.with_ansi(false).boxed(),
            LogFormat::Json => layer.json().flatten_event(true).boxed(),
        };
        subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let span = tracing::info_span!("request", key = %text);
            span.in_scope(|| info!(text, shown = %text, debug = ?text, "{text}"));
        });
        let bytes = log.0.lock().expect("no panic").clone();
        String::from_utf8(bytes).expect("UTF-8")
    }

    #[test]
    fn an_entry_is_one_line_of_plain_text_whatever_strangers_say() {
        for format in [LogFormat::Text, LogFormat::Json] {
            for text in ["a\nforged  INFO entry", "\u{1b}]0;pwned\u{7}", "\u{9b}2J\r\u{202e}", "\u{0}"] {
                let log = logged(text, format);
                let line = log.strip_suffix('\n').expect("a line");
                assert_eq!(text::line(line), line, "{format:?}: {text:?}");
            }
            assert!(logged("Größe", format).contains("Größe"));
        }
        let log = logged("a\n\u{9b}", LogFormat::Json);
        let entry: serde_json::Value = serde_json::from_str(&log).expect("JSON");
        assert_eq!(entry["shown"], "a\n\u{9b}");
    }
}
