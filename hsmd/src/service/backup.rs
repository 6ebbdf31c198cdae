//! A backup on its way to the operator, in bounded chunks: as fast as it is taken, and no faster.

use std::sync::Arc;

use proto::v1::BackupChunk;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::backup::Backup;
use crate::daemon::Daemon;

/// Bytes of one chunk: half of what a message may have.
const CHUNK: usize = 32 * 1024;
/// Chunks that wait for a slow reader.
const AHEAD: usize = 4;

/// Streams the file. A reader that goes away ends it; the drain waits for one that reads.
pub fn stream(
    daemon: Arc<Daemon>,
    mut backup: Backup,
) -> ReceiverStream<Result<BackupChunk, Status>> {
    let (to, stream) = mpsc::channel(AHEAD);
    let watcher = daemon.drain.watcher();
    // A thread of the blocking pool: parts are read from disk.
    tokio::task::spawn_blocking(move || {
        let (length, mut sent) = (backup.length(), 0);
        loop {
            let message = match backup.chunk(CHUNK) {
                Ok(Some(data)) => {
                    sent += data.len() as u64;
                    let last = sent == length;
                    Ok(BackupChunk { data, length, last })
                }
                Ok(None) => break,
                Err(refusal) => Err(Status::from(refusal)),
            };
            let ended = message.is_err();
            if to.blocking_send(message).is_err() || ended {
                break;
            }
        }
        drop(watcher);
    });
    ReceiverStream::new(stream)
}
