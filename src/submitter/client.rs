//! The submitter's end of a client's socket.

use std::io;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use smol::future::FutureExt;
use smol::io::{AsyncReadExt, AsyncWriteExt};

use crate::executor;
use crate::frame::{self, Decoder};
use crate::message::{Answer, CALL_BYTES_MAX, Call};
use crate::reactor::Async;

/// How long a client may take to say what it wants.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that waits for its answer.
pub struct Client {
    stream: Async<UnixStream>,
}

impl Client {
    /// Hears the call; none when what came was not one.
    pub async fn accept(stream: Async<UnixStream>) -> io::Result<Option<(Self, Call)>> {
        let mut client = Self { stream };
        let call = client
            .hear()
            .or(async {
                executor::late(CALL_TIMEOUT).await;
                Ok(None)
            })
            .await?;
        Ok(call.map(|call| (client, call)))
    }

    async fn hear(&mut self) -> io::Result<Option<Call>> {
        let mut decoder = Decoder::new(CALL_BYTES_MAX);
        let mut buffer = vec![0; 16 << 10];
        loop {
            let count = self.stream.read(&mut buffer).await?;
            if count == 0 {
                return Ok(None);
            }
            decoder.push(&buffer[..count]);
            match decoder.take::<Call>() {
                Ok(Some(call)) => return Ok(Some(call)),
                Ok(None) => {}
                Err(error) => {
                    log::warn!("a client's call makes no sense: {error}");
                    return Ok(None);
                }
            }
        }
    }

    /// Says something. An error means that the client is gone.
    pub async fn say(&mut self, answer: &Answer) -> io::Result<()> {
        let mut bytes = Vec::new();
        frame::encode(answer, CALL_BYTES_MAX, &mut bytes).map_err(io::Error::other)?;
        self.stream.write_all(&bytes).await
    }

    /// Returns when the client is gone: it was killed, or the compiler that it became has ended.
    pub async fn gone(&self) {
        let mut byte = [0; 1];
        let mut stream = &self.stream;
        // A client says nothing after its call; whatever it says is ignored.
        while let Ok(1..) = stream.read(&mut byte).await {}
    }
}
