//! The receiver: accepts requests of the program's provider and responds with 200.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::spawn_local;
use tokio::time::sleep;

use crate::http::Connection;
use crate::tally::Tally;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// Listens until the end of the run, and returns the address. Each response takes `takes`.
pub async fn start(
    address: SocketAddr,
    takes: Duration,
    tally: Rc<Tally>,
) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("the receiver cannot listen on {address}"))?;
    let address = listener.local_addr()?;
    spawn_local(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(spawn_local(serve(stream, takes, tally.clone()))),
                Err(error) => eprintln!("the receiver cannot accept a connection: {error}"),
            }
        }
    });
    Ok(address)
}

/// Accepts connections until the end of the run and never responds; returns the address.
pub async fn start_hanging() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .context("no free port for the hanging destination")?;
    let address = listener.local_addr()?;
    spawn_local(async move {
        let mut connections = Vec::new();
        loop {
            connections.extend(listener.accept().await.ok());
        }
    });
    Ok(address)
}

async fn serve(stream: TcpStream, takes: Duration, tally: Rc<Tally>) {
    if let Err(error) = receive(stream, takes, &tally).await {
        eprintln!("the receiver lost a connection: {error:#}");
    }
}

async fn receive(stream: TcpStream, takes: Duration, tally: &Tally) -> anyhow::Result<()> {
    let mut connection = Connection::new(stream)?;
    while let Some(request) = connection.request().await? {
        tally.received(&request.body);
        if !takes.is_zero() {
            sleep(takes).await;
        }
        connection.send(OK).await?;
    }
    Ok(())
}
