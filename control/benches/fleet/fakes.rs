//! Stand-ins for the admin ports of proxies, in a process of their own. It reads orders: the number of a Split is to have another
//! generation, an empty line asks for the number of lines said so far.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use super::Shape;
use super::slice::address;

/// Requests of one version at one proxy between two times that its counters are told.
const REQUESTS: u64 = 100;
/// Cells of the histogram that are not empty, which lie side by side.
const CELLS: usize = 30;
/// How often a proxy tells its counters that is not asked to do otherwise.
const EVERY: Duration = Duration::from_millis(200);
/// A proxy with nothing to say says so.
const PING_AFTER: Duration = Duration::from_secs(5);
/// More generations than a stream is behind at any time.
const ORDERS: usize = 1024;

/// What all proxies serve.
struct World {
    proxies: u32,
    splits: usize,
    generations: Vec<AtomicI64>,
    orders: broadcast::Sender<usize>,
    /// Lines said by all.
    said: AtomicU64,
}

/// Serves until the orders end; says a line once all listen.
pub(crate) async fn serve(shape: Shape) -> anyhow::Result<()> {
    let world = Arc::new(World {
        proxies: u32::try_from(shape.proxies)?,
        splits: shape.splits,
        generations: (0..shape.splits).map(|_| AtomicI64::new(1)).collect(),
        orders: broadcast::Sender::new(ORDERS),
        said: AtomicU64::new(0),
    });
    for proxy in 0..shape.proxies {
        let listener = TcpListener::bind(address(proxy)?).await?;
        tokio::spawn(accept(listener, proxy, Arc::clone(&world)));
    }
    super::say("listening");
    tokio::task::spawn_blocking(move || follow_orders(&world)).await?
}

fn follow_orders(world: &World) -> anyhow::Result<()> {
    for order in std::io::stdin().lines() {
        let order = order?;
        if order.is_empty() {
            super::say(&world.said.load(Ordering::Relaxed).to_string());
            continue;
        }
        let split: usize = order.parse()?;
        world.generations[split].fetch_add(1, Ordering::Relaxed);
        // A fleet that nobody follows has nobody to tell.
        let (Ok(_) | Err(_)) = world.orders.send(split);
    }
    Ok(())
}

async fn accept(listener: TcpListener, proxy: usize, world: Arc<World>) {
    // A stream that its reader closes is no matter.
    while let Ok((stream, _)) = listener.accept().await {
        let world = Arc::clone(&world);
        tokio::spawn(async move {
            let (Ok(()) | Err(_)) = speak(stream, proxy, &world).await;
        });
    }
}

async fn speak(mut stream: TcpStream, proxy: usize, world: &World) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let asked = every_asked(&mut stream).await?;
    let every = asked.unwrap_or(EVERY);
    let mut orders = world.orders.subscribe();
    let mut speaker = Speaker {
        stream,
        world,
        tells_rounds: asked.is_some(),
        round: 0,
    };
    speaker.begin(proxy, asked).await?;
    // Proxies begin at different moments.
    let phase = every * u32::try_from(proxy)? / world.proxies;
    let mut rounds = interval_at(Instant::now() + phase, every);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pings = interval_at(Instant::now() + PING_AFTER, PING_AFTER);
    loop {
        tokio::select! {
            split = orders.recv() => speaker.say(&[split?]).await?,
            _ = rounds.tick() => speaker.tell_counters().await?,
            _ = pings.tick() => speaker.write("{\"ping\":{}}\n", 1).await?,
        }
    }
}

struct Speaker<'a> {
    stream: TcpStream,
    world: &'a World,
    /// The reader wants to know when all counters have been told.
    tells_rounds: bool,
    /// How often counters have been told.
    round: u64,
}

impl Speaker<'_> {
    async fn begin(&mut self, proxy: usize, every: Option<Duration>) -> anyhow::Result<()> {
        let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        self.stream.write_all(head.as_bytes()).await?;
        self.write(&hello(proxy, every), 1).await?;
        let all: Vec<usize> = (0..self.world.splits).collect();
        self.say(&all).await?;
        self.write("{\"ping\":{}}\n", 1).await
    }

    async fn tell_counters(&mut self) -> anyhow::Result<()> {
        self.round += 1;
        let all: Vec<usize> = (0..self.world.splits).collect();
        self.say(&all).await?;
        if self.tells_rounds {
            self.write("{\"told\":{}}\n", 1).await?;
        }
        Ok(())
    }

    async fn say(&mut self, splits: &[usize]) -> anyhow::Result<()> {
        let counters = counters(REQUESTS * self.round);
        let mut lines = String::new();
        for &split in splits {
            let generation = self.world.generations[split].load(Ordering::Relaxed);
            lines.push_str(&line(split, generation, &counters));
        }
        self.write(&lines, splits.len()).await
    }

    async fn write(&mut self, lines: &str, count: usize) -> anyhow::Result<()> {
        let chunk = format!("{:x}\r\n{lines}\r\n", lines.len());
        self.stream.write_all(chunk.as_bytes()).await?;
        self.world
            .said
            .fetch_add(u64::try_from(count)?, Ordering::Relaxed);
        Ok(())
    }
}

/// Reads the request; the pace that it asks for, if it does.
async fn every_asked(stream: &mut TcpStream) -> anyhow::Result<Option<Duration>> {
    let mut request = vec![0; 4096];
    let length = stream.read(&mut request).await?;
    let request = String::from_utf8_lossy(&request[..length]).into_owned();
    let every = request.split_once("every=").map(|(_, rest)| rest);
    let digits = every.and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    Ok(digits
        .map(str::parse)
        .transpose()?
        .map(Duration::from_millis))
}

fn hello(proxy: usize, every: Option<Duration>) -> String {
    let bounds: Vec<String> = (1..96).map(|bound| format!("{bound}.0")).collect();
    let every = every.map_or_else(String::new, |every| {
        format!(r#","everyMs":{}"#, every.as_millis())
    });
    format!(
        "{{\"hello\":{{\"instance\":\"instance-{proxy}\",\"since\":\"2026-01-01T00:00:00Z\",\"schema\":\"v1alpha1\",\"latencyBoundsMs\":[{}],\"draining\":false{every}}}}}\n",
        bounds.join(",")
    )
}

/// Of one version.
fn counters(requests: u64) -> String {
    let each = requests / u64::try_from(CELLS).unwrap_or(1);
    let cells = vec![each.to_string(); CELLS].join(",");
    format!(
        r#"{{"requests":{requests},"codes":{{"200":{requests}}},"outcomes":{{"ok":{requests}}},"fallback":{{}},"latency":{{"counts":[{cells}],"sumMs":{requests}.5}}}}"#
    )
}

/// As a proxy writes it, with two versions that both have requests.
fn line(split: usize, generation: i64, counters: &str) -> String {
    let shares = r#"{"canary":0.2,"stable":0.8}"#;
    let version = |name: &str, revision: &str| {
        format!(
            r#"{{"name":"{name}","revision":"{revision}","live":true,"ready":2,"inFlight":1,"oldestInFlightMs":3.0,"counters":{counters}}}"#
        )
    };
    format!(
        "{{\"split\":{{\"namespace\":\"team\",\"name\":\"app-{split}\",\"uid\":\"{}\",\"generation\":{generation},\"rules\":[{{\"services\":[\"app-{split}\"],\"desired\":{shares},\"effective\":{shares}}}],\"versions\":[{},{}]}}}}\n",
        uid(split),
        version("stable", "65b9bbf8c9"),
        version("canary", "7d9f8c6b5d"),
    )
}

/// As long as a uid.
pub(crate) fn uid(split: usize) -> String {
    format!("{split:0>36}")
}
