//! The server with many, slow or broken clients, and with an independent Varlink client.

use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::{LocalSet, spawn_blocking, spawn_local};
use zlink::varlink_service::Proxy as _;

use super::client::{CallError, Client};
use super::protocol::{ApplyReply, Request, SaveReply, Topic, VARLINK_INTERFACE};
use super::server::{
    ClientAdmission, ControlListener, ReplyFuture, ReplyStreamFuture, RequestHandler, ensure_free,
};
use crate::refusal::Refusal;

/// Answers `Save` with a long text and refuses everything else.
struct LongReplies;

impl RequestHandler for LongReplies {
    fn answer(&self, request: Request) -> ReplyFuture<'_> {
        Box::pin(async move {
            match request {
                Request::Save => Ok(json!({ "text": "x".repeat(3_000_000) }).into()),
                Request::Reload { .. } => Ok(json!({ "summary": "nothing changed" }).into()),
                _ => Err(Refusal::new("no such thing", "look elsewhere").into()),
            }
        })
    }

    /// Counts to three, or forever if any topic is requested.
    fn follow(self: Rc<Self>, request: Request) -> ReplyStreamFuture {
        let endless = matches!(request, Request::Monitor { topics } if !topics.is_empty());
        let all = futures_util::stream::iter(0..).map(|n| json!({ "n": n }));
        Box::pin(async move {
            Ok(match endless {
                true => all.boxed_local(),
                false => all.take(3).boxed_local(),
            })
        })
    }
}

fn with_server<F: Future<Output = ()>>(test: impl FnOnce(PathBuf) -> F) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("control.sock");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, async {
        let listener = ControlListener::bind(&path).unwrap();
        // The user who runs the tests must not be privileged here.
        let admission = ClientAdmission::with_privileged(|_| false);
        spawn_local(async move { listener.serve_within(admission, Rc::new(LongReplies)).await });
        test(path.clone()).await;
    });
}

async fn ask<T: serde::de::DeserializeOwned + Send + 'static>(
    path: &Path,
    request: Request,
) -> Result<T, CallError> {
    let path = path.to_owned();
    spawn_blocking(move || Client::connect(&path)?.call(&request))
        .await
        .unwrap()
}

#[test]
fn a_call_is_answered_and_a_refusal_keeps_its_words() {
    with_server(async |path| {
        let applied: ApplyReply = ask(&path, Request::Reload { dry_run: false })
            .await
            .unwrap();
        assert_eq!(applied.summary, "nothing changed");
        let refused = ask::<ApplyReply>(&path, Request::GetHost)
            .await
            .unwrap_err();
        assert_eq!(refused.to_string(), "no such thing; look elsewhere");
        let saved: SaveReply = ask(&path, Request::Save).await.unwrap();
        assert_eq!(saved.text.len(), 3_000_000);
    });
}

#[test]
fn the_socket_is_for_owner_and_group_and_is_not_taken_from_a_daemon_that_answers() {
    with_server(async |path| {
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        let refusal = ensure_free(&path).unwrap_err();
        assert!(
            refusal.reason.contains("another daemon answers"),
            "{refusal}"
        );
    });
}

#[test]
fn a_stale_socket_is_replaced_and_another_file_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _entered = runtime.enter();
    let listener = ControlListener::bind(&path).unwrap();
    drop(listener);
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    assert!(
        ControlListener::bind(&path)
            .unwrap_err()
            .reason
            .contains("no socket")
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn slow_and_broken_clients_hold_nobody_up() {
    with_server(async |path| {
        let mut idle = Vec::new();
        for n in 0..200 {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            let words: &[u8] = match n % 5 {
                0 => b"",
                1 => b"{\"method\":\"io.gene",
                2 => b"\xff\xfe not json \0",
                // Never reads the megabytes that it asks for.
                3 => b"{\"method\":\"io.geneved.Control1.Save\"}\0",
                _ => b"\0\0\0\0",
            };
            stream.write_all(words).await.unwrap();
            idle.push(stream);
        }
        // Hangs up in the middle of the reply.
        let mut rude = UnixStream::connect(&path).await.unwrap();
        rude.write_all(b"{\"method\":\"io.geneved.Control1.Save\"}\0")
            .await
            .unwrap();
        rude.read_exact(&mut [0; 1000]).await.unwrap();
        drop(rude);
        let start = Instant::now();
        ask::<ApplyReply>(&path, Request::Reload { dry_run: false })
            .await
            .unwrap();
        assert!(start.elapsed() < Duration::from_secs(2));
        drop(idle);
    });
}

#[test]
fn a_call_with_many_replies_is_answered_until_its_end_or_until_the_client_hangs_up() {
    with_server(async |path| {
        let socket = path.clone();
        let numbers = spawn_blocking(move || {
            let mut numbers = Vec::new();
            let mut client = Client::connect(&socket).unwrap();
            let all = Request::Monitor { topics: Vec::new() };
            let take = |n: serde_json::Value| {
                numbers.push(n["n"].as_u64());
                ControlFlow::Continue(())
            };
            client.follow(&all, &[], take).unwrap();
            // The connection can be used for another call.
            client
                .call::<ApplyReply>(&Request::Reload { dry_run: false })
                .unwrap();
            numbers
        });
        let numbers = numbers.await.unwrap();
        assert_eq!(numbers[..3], [Some(0), Some(1), Some(2)]);
        let socket = path.clone();
        let endless = spawn_blocking(move || {
            let mut client = Client::connect(&socket).unwrap();
            let topics = vec![Topic::Drop];
            let mut left = 1000;
            let take = |_: serde_json::Value| {
                left -= 1;
                match left {
                    0 => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                }
            };
            client.follow(&Request::Monitor { topics }, &[], take)
        });
        endless.await.unwrap().unwrap();
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let once: &[u8] = b"{\"method\":\"io.geneved.Control1.Monitor\"}\0";
        stream.write_all(once).await.unwrap();
        let mut reply = vec![0; 4096];
        let got = stream.read(&mut reply).await.unwrap();
        let reply = String::from_utf8_lossy(&reply[..got]).into_owned();
        assert!(
            reply.contains("org.varlink.service.ExpectedMore"),
            "{reply}"
        );
    });
}

#[test]
fn a_message_without_end_is_cut_off() {
    with_server(async |path| {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        let chunk = vec![b' '; 1 << 20];
        let mut sent = 0;
        while sent < 64 && stream.write_all(&chunk).await.is_ok() {
            sent += 1;
        }
        assert!(sent < 64, "64 MiB were taken");
    });
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
    line.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        << 10
}

#[test]
fn calls_that_were_sent_ahead_hold_up_nobody_else() {
    with_server(async |path| {
        let mut greedy = UnixStream::connect(&path).await.unwrap();
        let call = b"{\"method\":\"io.geneved.Control1.GetHost\",\"oneway\":true}\0";
        let ahead = call.repeat((2 << 20) / call.len());
        let sending = spawn_local(async move { greedy.write_all(&ahead).await });
        for _ in 0..20 {
            let start = Instant::now();
            ask::<ApplyReply>(&path, Request::Reload { dry_run: false })
                .await
                .unwrap();
            assert!(start.elapsed() < Duration::from_secs(5));
        }
        sending.await.unwrap().unwrap();
    });
}

#[test]
fn half_messages_and_replies_that_nobody_reads_take_bounded_memory() {
    with_server(async |path| {
        let before = resident();
        let mut clients = Vec::new();
        let half = vec![b' '; 3 << 20];
        for n in 0..120 {
            let mut client = UnixStream::connect(&path).await.unwrap();
            let sent = match n % 2 {
                0 => {
                    client
                        .write_all(b"{\"method\":\"io.geneved.Control1.Save\"}\0")
                        .await
                }
                _ => {
                    let sending = client.write_all(&half);
                    // Blocks until there is room.
                    let _ = tokio::time::timeout(Duration::from_millis(5), sending).await;
                    Ok(())
                }
            };
            sent.unwrap();
            clients.push(client);
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let grown = resident().saturating_sub(before) >> 20;
        assert!(grown < 320, "{grown} MiB for 120 clients that are stuck");
        let start = Instant::now();
        ask::<ApplyReply>(&path, Request::Reload { dry_run: false })
            .await
            .unwrap();
        assert!(start.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn clients_beyond_the_limit_are_told_so() {
    with_server(async |path| {
        let mut all = Vec::new();
        for _ in 0..512 {
            all.push(UnixStream::connect(&path).await.unwrap());
            tokio::task::yield_now().await;
        }
        let mut one_more = UnixStream::connect(&path).await.unwrap();
        let mut words = Vec::new();
        one_more.read_to_end(&mut words).await.unwrap();
        assert!(String::from_utf8_lossy(&words).contains("Control1.Busy"));
        drop(all);
        tokio::time::sleep(Duration::from_millis(100)).await;
        ask::<ApplyReply>(&path, Request::Reload { dry_run: false })
            .await
            .unwrap();
    });
}

#[test]
fn an_independent_varlink_client_can_introspect_the_service() {
    with_server(async |path| {
        let mut connection = zlink::tokio::unix::connect(&path).await.unwrap();
        let info = connection.get_info().await.unwrap().unwrap();
        assert!(info.interfaces.iter().any(|i| *i == VARLINK_INTERFACE));
        let name = VARLINK_INTERFACE.try_into().unwrap();
        let description = connection
            .get_interface_description(name)
            .await
            .unwrap()
            .unwrap();
        let interface = description.parse().unwrap();
        let methods: Vec<String> = interface.methods().map(|m| m.name().to_string()).collect();
        let known = [
            "Apply",
            "ListLinks",
            "ListRoutes",
            "ListFdb",
            "FlushFdb",
            "ListEndpoints",
            "ListPolicies",
            "ListNats",
            "ListServices",
            "ListClasses",
            "ListOptions",
            "ListFlows",
            "FlushFlows",
            "Trace",
            "GetRates",
            "Monitor",
            "Capture",
            "GetHost",
            "FlushHosts",
            "Reload",
            "Save",
        ];
        assert_eq!(methods, known);
        let name = "io.geneved.Control9".try_into().unwrap();
        let refused = connection
            .get_interface_description(name)
            .await
            .unwrap_err();
        assert!(
            format!("{refused:?}").contains("InterfaceNotFound"),
            "{refused:?}"
        );
    });
}

#[test]
fn an_unknown_method_or_argument_is_an_error_of_its_own() {
    with_server(async |path| {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        for (call, error) in [
            (
                r#"{"method":"io.geneved.Control1.Explode"}"#,
                "org.varlink.service.MethodNotFound",
            ),
            (
                r#"{"method":"a.b.C"}"#,
                "org.varlink.service.InterfaceNotFound",
            ),
            (
                r#"{"method":"io.geneved.Control1.ListLinks","parameters":{"nam":"x"}}"#,
                "org.varlink.service.InvalidParameter",
            ),
        ] {
            stream.write_all(call.as_bytes()).await.unwrap();
            stream.write_all(b"\0").await.unwrap();
            let mut reply = vec![0; 4096];
            let got = stream.read(&mut reply).await.unwrap();
            let reply = String::from_utf8_lossy(&reply[..got]).into_owned();
            assert!(reply.contains(error), "{reply}");
        }
    });
}

#[test]
fn requests_survive_the_wire_and_arguments_may_be_left_out() {
    let packet = r#"{"dev":"gnv0","direction":"egress","from":"10.0.0.1","to":"10.0.0.2","proto":"tcp","dport":80}"#;
    let requests = [
        Request::ListPolicies { dev: None },
        Request::ListNats {
            dev: Some("gnv0".parse().unwrap()),
        },
        Request::ListServices { dev: None },
        Request::ListClasses { dev: None },
        Request::ListOptions,
        Request::ListFlows {
            filter: serde_json::from_str(r#"{"from":"10.0.0.0/8","state":"closed"}"#).unwrap(),
            limit: 5,
        },
        Request::FlushFlows {
            filter: Default::default(),
        },
        Request::Trace {
            packet: serde_json::from_str(packet).unwrap(),
        },
        Request::FlushHosts { address: None },
        Request::FlushHosts {
            address: "192.0.2.2".parse().ok(),
        },
        Request::GetRates {
            flows: 20,
            by_packets: true,
        },
        Request::Monitor {
            topics: vec![Topic::Drop, Topic::Qos],
        },
        Request::Capture {
            capture: serde_json::from_str(r#"{"filter":{"dport":53},"dropped":true,"snaplen":96}"#)
                .unwrap(),
        },
    ];
    for request in requests {
        let json = serde_json::to_string(&request.to_call()).unwrap();
        let call = serde_json::from_str(&json).unwrap();
        assert_eq!(Request::from_call(call), Ok(request));
    }
    let call = serde_json::from_str(r#"{"method":"io.geneved.Control1.ListFlows"}"#).unwrap();
    let all = Request::ListFlows {
        filter: Default::default(),
        limit: u32::MAX,
    };
    assert_eq!(Request::from_call(call), Ok(all));
}
