//! A question and its answer, over the network or inside the program: the argument decides.
//!
//! `cargo run --example request_reply`, or `cargo run --example request_reply 127.0.0.1:8475`

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::time::Duration;

use pillarbox::client::{Connect, Mailbox, NewMessage, Session, Subscribe};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = pillarbox::Broker::memory().await?;
    let session = match std::env::args().nth(1) {
        Some(address) => Session::connect(&Connect { address, ..Connect::default() }).await?,
        None => broker.session().await?,
    };
    session.declare(&Mailbox::durable("greetings")).await?;
    let server = session
        .serve("greetings", &Subscribe::default(), |request| async move {
            let name = String::from_utf8(request.body().to_vec())?;
            Ok::<_, std::string::FromUtf8Error>(NewMessage::from(format!("hello, {name}")))
        })
        .await?;
    let reply = session.request("greetings", "Ada", Duration::from_secs(10)).await?;
    println!("{}", String::from_utf8_lossy(reply.body()));
    drop(server);
    broker.stop().await?;
    Ok(())
}
