//! Input of a control socket's client: messages do not depend on how bytes are split, each is refused or understood,
//! understood messages serialize the same way again, and changes are applied or refused.
#![no_main]

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use geneved::config::state::{Fabric, DesiredState};
use geneved::control::protocol::{Call, Request};
use geneved::control::server::messages;
use libfuzzer_sys::fuzz_target;
use tokio::io::{AsyncRead, ReadBuf};

/// Reader that returns bytes in pieces whose lengths come from the input.
struct Pieces<'a> {
    lengths: &'a [u8],
    bytes: &'a [u8],
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let length = self.lengths.first().map_or(usize::MAX, |n| usize::from(*n).max(1));
        self.lengths = self.lengths.get(1..).unwrap_or_default();
        let length = length.min(self.bytes.len()).min(into.remaining());
        let (now, later) = self.bytes.split_at(length);
        into.put_slice(now);
        self.bytes = later;
        Poll::Ready(Ok(()))
    }
}

fuzz_target!(|data: &[u8]| {
    let (lengths, bytes) = data.split_at(data.len().min(8));
    let mut pieces = Pieces { lengths, bytes };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let got = runtime.unwrap().block_on(messages(&mut pieces));
    let ends = bytes.last().is_none_or(|last| *last == 0);
    assert_eq!(got.is_ok(), ends);
    let Ok(got) = got else { return };
    let mut expected: Vec<_> = bytes.split(|byte| *byte == 0).collect();
    expected.pop();
    assert_eq!(got, expected);

    let mut state = DesiredState::on(Fabric { secret: true, ..Fabric::default() });
    for message in got {
        let Ok(call) = serde_json::from_slice::<Call>(&message) else { continue };
        let Ok(request) = Request::from_call(call) else { continue };
        assert_eq!(Request::from_call(request.to_call()).as_ref().ok(), Some(&request));
        let Request::Apply { changes } = request else { continue };
        for change in changes {
            let before = state.clone();
            if let Err(refusal) = state.apply(&change) {
                assert!(!refusal.reason.is_empty());
                assert!(state == before, "a refused change was made: {change:?}");
            }
        }
    }
    // Accepted changes are accepted again.
    let mut again = DesiredState::on(state.fabric);
    for change in state.changes() {
        again.apply(&change).unwrap_or_else(|refusal| panic!("{change:?}: {refusal}"));
    }
    assert!(again == state);
});
