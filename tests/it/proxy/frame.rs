//! Frames of WebSocket, and a server that sends them back.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::wire::LONG;

/// A frame (RFC 6455 §5.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub is_last: bool,
    pub opcode: u8,
    pub content: Vec<u8>,
}

pub fn text(content: &str) -> Frame {
    Frame { is_last: true, opcode: 1, content: content.into() }
}

impl Frame {
    /// As a client writes it, or a server.
    pub fn bytes(&self, mask: Option<[u8; 4]>) -> Vec<u8> {
        let mut bytes = vec![self.opcode | if self.is_last { 0x80 } else { 0 }];
        let masked = if mask.is_some() { 0x80 } else { 0 };
        match self.content.len() {
            length @ 0..126 => bytes.push(length as u8 | masked),
            length @ 126..65536 => {
                bytes.push(126 | masked);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                bytes.push(127 | masked);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(mask.as_ref().map_or(&[], <[u8; 4]>::as_slice));
        let key = mask.unwrap_or_default();
        bytes.extend(self.content.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    /// The next one; `None` at the end.
    pub async fn read(io: &mut (impl AsyncRead + Unpin)) -> Option<Self> {
        let read = async {
            let (first, second) = (io.read_u8().await.ok()?, io.read_u8().await.ok()?);
            let length = match second & 0x7f {
                126 => u64::from(io.read_u16().await.ok()?),
                127 => io.read_u64().await.ok()?,
                short => u64::from(short),
            };
            let mut mask = [0; 4];
            if second & 0x80 != 0 {
                io.read_exact(&mut mask).await.ok()?;
            }
            let mut content = vec![0; usize::try_from(length).expect("it fits")];
            io.read_exact(&mut content).await.ok()?;
            content.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
            Some(Self { is_last: first & 0x80 != 0, opcode: first & 0x0f, content })
        };
        timeout(LONG, read).await.expect("a frame, or the end, in time")
    }

    pub fn close_code(&self) -> u16 {
        assert_eq!(self.opcode, 8, "{self:?}");
        u16::from_be_bytes([self.content[0], self.content[1]])
    }
}

/// What makes an upstream leave without a word.
pub const LEAVE: &str = "leave";

/// A server that sends every frame back, answers pings, and the close.
pub async fn echo(mut io: impl AsyncRead + AsyncWrite + Unpin) {
    while let Some(mut frame) = Frame::read(&mut io).await {
        if frame.content == LEAVE.as_bytes() {
            break;
        }
        let is_close = frame.opcode == 8;
        frame.opcode = if frame.opcode == 9 { 10 } else { frame.opcode };
        if io.write_all(&frame.bytes(None)).await.is_err() || is_close {
            break;
        }
    }
}
