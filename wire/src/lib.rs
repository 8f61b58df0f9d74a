//! The Pyroscope RPC and pprof messages that the server speaks.
