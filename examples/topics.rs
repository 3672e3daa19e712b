//! Topics with slashes: who subscribes gets a copy, in order.
//!
//! `cargo run --example topics`

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use pillarbox::broker::slash;
use pillarbox::client::Subscribe;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = pillarbox::Broker::memory().await?;
    let session = broker.session().await?;
    let mut kitchen = session.subscribe_topic("house/kitchen/#", &Subscribe::default()).await?;
    let mut heat = session.subscribe_topic("house/+/heat", &Subscribe::default()).await?;

    session.publish_topic("house/kitchen/heat", "21").await?;
    session.publish_topic("house/attic/heat", "14").await?;
    session.publish_topic("house/kitchen/light", "on").await?;

    for (name, messages) in [("kitchen", &mut kitchen), ("heat", &mut heat)] {
        for _ in 0..2 {
            let message = messages.next().await?;
            let key = message.address().map_or(&[][..], |(_, key)| key);
            let topic = slash::topic(&String::from_utf8_lossy(key));
            println!("{name}: {topic} = {}", String::from_utf8_lossy(message.body()));
            message.accept()?;
        }
    }
    broker.stop().await?;
    Ok(())
}
