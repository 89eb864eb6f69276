//! Uploads an archive to the daemon while it is read.

use banger_api::images::ImageUpload;
use banger_api::operation::Accepted;
use banger_api::{ApiError, ErrorCode, routes};
use bytes::{Bytes, BytesMut};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::http::request as http_types;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

use crate::archive::PieceBody;
use crate::client::Client;
use crate::http::{self, CallError};

/// Size of one piece, in bytes.
const PIECE_BYTES: usize = 1 << 18;
/// Capacity of the queue of pieces.
const QUEUE_PIECES: usize = 4;

/// Result of an upload.
pub(crate) enum Uploaded {
    /// The daemon answered.
    Answered(Response<Incoming>),
    /// The body could not be read.
    Unreadable(std::io::Error),
}

impl Client {
    /// Creates an image from an archive; calls `sent` with the number of bytes read so far.
    ///
    /// If the future is dropped before it is ready, the daemon removes the partial upload.
    ///
    /// # Errors
    /// A read error; a bad name or one in use, a full disk, or another error of the daemon.
    pub async fn upload_image(
        &self,
        upload: &ImageUpload,
        reader: impl AsyncRead + Unpin,
        sent: impl FnMut(u64),
    ) -> Result<Accepted, ApiError> {
        self.ensure_daemon().await?;
        // Checked before the upload: an answer may be lost when the daemon stops reading.
        if !upload.replace
            && let Ok(owner) = self.image(&upload.name).await
            && owner.names.contains(&upload.name)
        {
            return Err(owner.name_taken(&upload.name));
        }
        // Names have no characters that need encoding in a query.
        let query = format!("name={}&replace={}", upload.name, upload.replace);
        let request = Request::post(format!("{}?{query}", routes::IMAGE_UPLOAD))
            .header("content-type", "application/octet-stream");
        match self.upload(request, reader, sent).await? {
            Uploaded::Answered(answer) => http::decode(answer).await,
            Uploaded::Unreadable(error) => {
                let text = "the archive cannot be read from standard input";
                Err(ApiError::new(ErrorCode::BadRequest, text).caused_by(&error))
            }
        }
    }

    /// Sends a request whose body is read meanwhile. The daemon must run.
    pub(crate) async fn upload(
        &self,
        request: http_types::Builder,
        reader: impl AsyncRead + Unpin,
        sent: impl FnMut(u64),
    ) -> Result<Uploaded, ApiError> {
        let lost = |error: CallError| self.unreachable(&error);
        let stream = self.transport().connect().await.map_err(CallError::NotSent).map_err(lost)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(CallError::NoAnswer)
            .map_err(lost)?;
        tokio::spawn(connection);
        let (pieces, receiver) = mpsc::channel(QUEUE_PIECES);
        let request = request
            .header("host", "localhost")
            .body(PieceBody(receiver))
            .map_err(|error| lost(CallError::NotSent(std::io::Error::other(error))))?;
        let answer = async { sender.send_request(request).await.map_err(CallError::NoAnswer) };
        tokio::pin!(answer);
        let mut feeding = std::pin::pin!(feed(reader, pieces, sent));
        let mut read = None;
        // An answer before the end of the body is an error; the rest is not sent.
        let answer = loop {
            tokio::select! {
                answer = &mut answer => break answer,
                fed = &mut feeding, if read.is_none() => read = Some(fed),
            }
        };
        if let Some(Err(error)) = read {
            return Ok(Uploaded::Unreadable(error));
        }
        answer.map(Uploaded::Answered).map_err(lost)
    }
}

async fn feed(
    mut reader: impl AsyncRead + Unpin,
    pieces: mpsc::Sender<std::io::Result<Bytes>>,
    mut sent: impl FnMut(u64),
) -> std::io::Result<()> {
    let mut total = 0;
    loop {
        let mut piece = BytesMut::with_capacity(PIECE_BYTES);
        match reader.read_buf(&mut piece).await {
            Ok(0) => return Ok(()),
            Ok(count) => total += count as u64,
            Err(error) => {
                let broken = std::io::Error::from(error.kind());
                let _ = pieces.send(Err(broken)).await;
                return Err(error);
            }
        }
        if pieces.send(Ok(piece.freeze())).await.is_err() {
            // The connection has ended; the answer has the reason.
            return Ok(());
        }
        sent(total);
    }
}
