//! Receive buffer of a client, which collects bytes until a message is complete.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::time::{Instant, timeout_at};

use super::admission::{ByteQuota, ClientAdmission, RESERVED_BYTES};
use super::{CLIENT_TIMEOUT, IDLE, progress};
use crate::control::protocol::MAX_MESSAGE;

/// Bytes requested from the kernel per read.
const READ_CHUNK: usize = 16 << 10;

/// Bytes that a client has sent and that are not parsed yet.
#[derive(Default)]
pub(super) struct ReceiveBuffer {
    bytes: BytesMut,
    /// Length of the prefix known to contain no NUL.
    searched: usize,
    charge: ByteQuota,
    /// Number of bytes that `charge` covers.
    charged: usize,
}

impl ReceiveBuffer {
    /// Returns the next message without its final NUL; `None` if the client has hung up between messages.
    ///
    /// # Errors
    /// If the client sends nothing, does not finish a message in time, or the message is too long.
    pub(super) async fn message(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
        admission: &ClientAdmission,
    ) -> io::Result<Option<Bytes>> {
        let mut deadline = None;
        loop {
            let unseen = &self.bytes[self.searched..];
            if let Some(end) = unseen.iter().position(|&b| b == 0) {
                let mut message = self.bytes.split_to(self.searched + end + 1);
                message.truncate(message.len() - 1);
                self.searched = 0;
                return Ok(Some(message.freeze()));
            }
            self.searched = self.bytes.len();
            if self.searched == 0 {
                self.give_back();
            }
            if self.searched > MAX_MESSAGE {
                return Err(io::Error::other("the message is too long"));
            }
            // The deadline runs from a message's first byte, however slowly the rest trickles in.
            let until = match self.searched {
                0 => Instant::now() + IDLE,
                _ => *deadline.get_or_insert_with(|| Instant::now() + CLIENT_TIMEOUT),
            };
            timeout_at(until, self.make_room(admission)).await?;
            let holds = self.charge.is_some();
            let reading = self.read(from);
            let got = match holds {
                true => timeout_at(until, progress(admission, reading)).await??,
                false => timeout_at(until, reading).await??,
            };
            if got == 0 {
                return match self.bytes.is_empty() {
                    true => Ok(None),
                    false => Err(io::ErrorKind::UnexpectedEof.into()),
                };
            }
        }
    }

    /// Reads what a client sends while its call is being answered. Returns 0 when it has hung up.
    ///
    /// # Errors
    /// If it sends more than the room that each client has of its own.
    pub(super) async fn read_ahead(
        &mut self,
        from: &mut (impl AsyncRead + Unpin),
    ) -> io::Result<usize> {
        if self.bytes.len() > RESERVED_BYTES {
            return Err(io::Error::other("too much was sent ahead"));
        }
        self.read(from).await
    }

    async fn make_room(&mut self, admission: &ClientAdmission) {
        let after = self.bytes.len() + READ_CHUNK;
        if after > self.charged.max(RESERVED_BYTES) {
            // Doubled, so that a long message is charged only a few times. The earlier charge is released first: two
            // clients that hold a part while waiting for more could deadlock.
            let wanted = (2 * after).min(MAX_MESSAGE + 2 * READ_CHUNK);
            self.charge = None;
            self.charge = admission.receive(wanted).await;
            self.charged = wanted;
        }
    }

    async fn read(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        self.bytes.reserve(READ_CHUNK);
        from.take(READ_CHUNK as u64).read_buf(&mut self.bytes).await
    }

    fn give_back(&mut self) {
        if self.charged > 0 {
            *self = ReceiveBuffer::default();
        }
    }
}
