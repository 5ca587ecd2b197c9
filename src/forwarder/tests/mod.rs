//! The forwarder against real sockets.
