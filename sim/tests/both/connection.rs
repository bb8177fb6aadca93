//! Over a connection.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use sim::{Sim, World};

use crate::Received;

#[path = "ebs.rs"]
mod ebs;
#[path = "http.rs"]
mod http;

async fn open(world: World) -> io::Result<Sim> {
    Sim::start(world).await
}

/// Sends a request as it is on the wire.
fn exchange(sim: &Sim, request: &[u8]) -> io::Result<Received> {
    let mut stream = TcpStream::connect(sim.endpoint().replace("http://", ""))?;
    // A server that never answers should fail a test, not hang it.
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    stream.write_all(request)?;
    let mut head = Vec::new();
    stream.read_to_end(&mut head)?;
    let end = head.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
    let body = head.split_off(end + 4);
    let head = String::from_utf8(head).unwrap();
    let headers = head.lines().filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(Received {
        status: head[9..12].parse().unwrap(),
        headers: headers.collect(),
        body,
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_promises_too_much_is_refused() {
    let sim = open(World::default()).await.unwrap();
    let head =
        "POST / HTTP/1.1\r\nhost: sim\r\nconnection: close\r\ncontent-length: 99999999\r\n\r\n";
    let answer = exchange(&sim, head.as_bytes()).unwrap();
    assert_eq!(answer.status, 413);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_server_frees_its_port() {
    let sim = open(World::default()).await.unwrap();
    let port: u16 = sim.endpoint().rsplit(':').next().unwrap().parse().unwrap();
    drop(sim);
    let mut again = Sim::start_on(port, World::default()).await;
    for _ in 0..1000 {
        if again.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        again = Sim::start_on(port, World::default()).await;
    }
    assert_eq!(
        again.unwrap().endpoint(),
        format!("http://127.0.0.1:{port}")
    );
}
