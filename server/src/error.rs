//! Why the server could not start or had to stop.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::ConfigError;
use crate::store::StoreError;
use crate::traces::TraceError;

/// Why the server could not start or had to stop.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A setting cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log filter cannot be read.
    #[error("log = {value:?}: {message}")]
    LogFilter {
        /// What was given.
        value: String,
        /// What is wrong with it.
        message: String,
    },
    /// The address names no host and port.
    #[error("{name} = {value:?}: {source}; expected host:port, as 127.0.0.1:4040")]
    Address {
        /// The setting.
        name: &'static str,
        /// What was given.
        value: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Other machines could reach the server, and nobody has to log in.
    #[error(
        "refusing to listen on {address}: other machines can reach it and there is no authentication; listen on \
         127.0.0.1, or set up tokens (--tokens-file, SPANFLAME_TOKENS), or put an authenticating proxy in front and \
         pass --allow-unauthenticated (allow_unauthenticated = true, SPANFLAME_ALLOW_UNAUTHENTICATED=true)"
    )]
    Exposed {
        /// The address.
        address: SocketAddr,
    },
    /// Files with tokens or certificates cannot be used.
    #[error("{name}: {message}")]
    Files {
        /// The setting that names them.
        name: &'static str,
        /// What is wrong with them.
        message: String,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The store cannot be opened.
    #[error("cannot open the store in {}: {source}", path.display())]
    Store {
        /// The data directory.
        path: PathBuf,
        /// What the store said.
        source: StoreError,
    },
    /// The store of traces cannot be opened.
    #[error("cannot open the store of traces: {0}")]
    Traces(#[from] TraceError),
    /// The system refused something else.
    #[error(transparent)]
    Io(#[from] io::Error),
}
