//! Serves metrics over HTTP, on a Unix socket and on a loopback port.
//!
//! One request per connection, with a limit on connections and a time limit for each, so that a slow or broken
//! scraper does not affect anybody else.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::metrics;
use crate::io::connections;
use crate::net::unix::SocketFile;
use crate::refusal::Refusal;

/// Maximum number of concurrent scrapers.
const MAX_SCRAPERS: usize = 64;
/// Time limit for serving a scraper.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(10);

/// Source of a metrics page.
pub trait MetricsSource {
    /// Renders the current page.
    fn page(&self) -> impl Future<Output = String>;
}

/// Listeners that metrics are served on.
#[derive(Debug)]
pub struct ScrapeListeners {
    unix: Option<SocketFile>,
    tcp: Option<TcpListener>,
}

impl ScrapeListeners {
    /// Listens on `socket`, mode 0660, and on `address`, each if given.
    ///
    /// # Errors
    /// If one of them cannot be bound.
    pub async fn bind(socket: Option<&Path>, address: Option<SocketAddr>) -> Result<Self, Refusal> {
        let unix = socket
            .map(|path| SocketFile::bind(path, "metrics socket", "metrics-socket"))
            .transpose()?;
        let tcp = match address {
            Some(address) => Some(TcpListener::bind(address).await.map_err(|error| {
                Refusal::new(
                    format!("metrics {address}: {error}"),
                    "choose another port in [daemon] metrics; \"ss -ltnp\" shows who has this one",
                )
            })?),
            None => None,
        };
        Ok(ScrapeListeners { unix, tcp })
    }

    /// Serves scrapers until the future is dropped.
    pub async fn serve<S: MetricsSource + 'static>(&self, source: Rc<S>) {
        let places = Rc::new(Semaphore::new(connections(MAX_SCRAPERS)));
        loop {
            let unix = async {
                match &self.unix {
                    Some(unix) => unix.listener().accept().await.map(|(stream, _)| stream),
                    None => std::future::pending().await,
                }
            };
            let tcp = async {
                match &self.tcp {
                    Some(tcp) => tcp.accept().await.map(|(stream, _)| stream),
                    None => std::future::pending().await,
                }
            };
            let error = tokio::select! {
                stream = unix => stream.map(|s| answer(s, &places, &source)).err(),
                stream = tcp => stream.map(|s| answer(s, &places, &source)).err(),
            };
            if let Some(error) = error {
                tracing::warn!(%error, "cannot accept a scraper: {error}");
                sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

fn answer<S: MetricsSource + 'static>(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    places: &Rc<Semaphore>,
    source: &Rc<S>,
) {
    let (places, source) = (Rc::clone(places), Rc::clone(source));
    let Ok(place) = places.try_acquire() else {
        return;
    };
    place.forget();
    tokio::task::spawn_local(async move {
        let service = service_fn(async |request: Request<Incoming>| {
            Ok::<_, Infallible>(respond(&request, &*source).await)
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .keep_alive(false)
            .max_buf_size(16 << 10)
            .serve_connection(TokioIo::new(stream), service);
        match timeout(SCRAPE_TIMEOUT, connection).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "a scraper broke off"),
            Err(_) => tracing::debug!("hung up on a slow scraper"),
        }
        places.add_permits(1);
    });
}

async fn respond(
    request: &Request<Incoming>,
    source: &impl MetricsSource,
) -> Response<Full<Bytes>> {
    let text = |status: StatusCode, text: &'static str| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
    };
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    match request.uri().path() {
        "/metrics" => {
            let mut response = Response::new(Full::from(source.page().await));
            let form = HeaderValue::from_static(metrics::CONTENT_TYPE);
            response.headers_mut().insert(CONTENT_TYPE, form);
            response
        }
        "/" => text(StatusCode::OK, "geneved: metrics are at /metrics\n"),
        _ => text(StatusCode::NOT_FOUND, "metrics are at /metrics\n"),
    }
}
