//! The doors between roles: a small closed set of messages, framed, size-limited, pipelined.
//!
//! - [`frame`]: how a message lies on a socket pair; blocking ends for keeper and supervisor.
//! - [`pair`]: socket pairs, and how file descriptors travel over them (SCM_RIGHTS).
//! - [`keeper`]: what the edge asks of the keeper; [`reseal`]: cards sealed again.
//! - [`forwarder`]: what the keeper asks of the forwarder.
//! - [`courier`]: what the edge asks of the courier.
//! - [`unsealer`]: what supervisor and unsealer say to each other, and how the KEK reaches the keeper.
//! - [`control`]: what the supervisor tells each role; [`keys`] and [`resolution`]: keys, and charges settled by hand, in these messages.
//!
//! Invariant: no message from the edge adds or changes a connector, credential, destination or tenant; those come over
//! [`control`] only.

pub mod control;
pub mod courier;
pub mod forwarder;
pub mod frame;
pub mod keeper;
pub mod keys;
pub mod pair;
pub mod reseal;
pub mod resolution;
pub mod unsealer;
