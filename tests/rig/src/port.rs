//! Ports for servers that must be found again at the same place after a restart.

use std::net::TcpListener;

use rand::Rng;

/// A port of the loopback interface that nobody listens on.
///
/// It lies below the range from which the kernel takes ports for outgoing connections, so that none
/// of those gets it before the server does.
pub fn free_port() -> u16 {
    let mut random = rand::rng();
    (0..1000)
        .map(|_| random.random_range(10_000..30_000))
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("one of a thousand ports is free")
}
