//! Scraper of metrics, and checks of their format.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Sends an HTTP GET for `path` to a Unix socket. Returns the status and the body.
///
/// # Panics
/// If there is no reply.
#[must_use]
pub fn get(socket: &Path, path: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).expect("metrics are served");
    ask(&mut stream, path)
}

/// Like [`get`], over an open connection.
///
/// # Panics
/// If there is no reply.
pub fn ask(stream: &mut (impl Read + Write), path: &str) -> (u16, String) {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: geneved\r\n\r\n").expect("it listens");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
    (status.expect("a status"), body.to_owned())
}

/// The metrics of a daemon, by `NAME{LABELS}`.
///
/// # Panics
/// If it does not serve them.
#[must_use]
pub fn scrape(socket: &Path) -> BTreeMap<String, f64> {
    let (status, page) = get(socket, "/metrics");
    assert_eq!(status, 200);
    series(&page)
}

/// Parses the series of a page.
///
/// # Panics
/// If a line is not a series.
#[must_use]
pub fn series(page: &str) -> BTreeMap<String, f64> {
    let lines = page
        .lines()
        .filter(|l| !l.starts_with('#') && !l.is_empty());
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').expect("name and value");
            (name.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

/// Metric names of these series.
#[must_use]
pub fn names(series: &BTreeMap<String, f64>) -> std::collections::BTreeSet<String> {
    let name = |s: &String| s.split('{').next().unwrap_or_default().to_owned();
    series.keys().map(name).collect()
}

/// Runs `promtool WORDS` on an input; what it says, and whether it is content.
///
/// # Panics
/// If promtool, which comes with Debian's prometheus, is not there.
#[must_use]
pub fn promtool(words: &[&str], input: &str) -> (bool, String) {
    let child = Command::new("promtool")
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| {
        panic!("promtool: {error}; it is part of Debian's package prometheus, see tests/run")
    });
    let mut stdin = child.stdin.take().expect("it has one");
    // A tool that takes files does not read it.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// A connection that asks for nothing.
///
/// # Panics
/// If nobody listens.
#[must_use]
pub fn idle(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).expect("metrics are served");
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("a timeout");
    stream
}
