//! What redis-rs sees of the server at a port, as one line of JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use redis::streams::{StreamReadOptions, StreamReadReply};
use redis::{Client, Commands, Connection, RedisResult, Value, cmd, pipe};
use serde_json::{Map, json};

type Saw = Map<String, serde_json::Value>;

const SCRIPT: &str = "redis.call('RPUSH', KEYS[1], ARGV[1]) return redis.call('LRANGE', KEYS[1], 0, -1)";

fn main() -> RedisResult<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let protocol = match arguments[2].as_str() {
        "default" => String::new(),
        version => format!("/?protocol=resp{version}"),
    };
    let client = Client::open(format!("redis://127.0.0.1:{}{protocol}", arguments[1]))?;
    let mut connection = client.get_connection()?;
    let mut saw = Saw::new();
    saw.insert("client".into(), json!("redis-rs"));
    handshake(&mut connection, &mut saw)?;
    values(&mut connection, &mut saw)?;
    batches(&mut connection, &mut saw)?;
    conflict(&client, &mut connection, &mut saw)?;
    blocking(&client, &mut connection, &mut saw)?;
    messages(&client, &mut connection, &mut saw)?;
    script(&mut connection, &mut saw)?;
    scan(&mut connection, &mut saw)?;
    stream(&client, &mut connection, &mut saw)?;
    println!("{}", serde_json::Value::Object(saw));
    Ok(())
}

fn handshake(connection: &mut Connection, saw: &mut Saw) -> RedisResult<()> {
    saw.insert("ping".into(), json!(cmd("PING").query::<String>(connection)?));
    let info: String = cmd("CLIENT").arg("INFO").query(connection)?;
    let resp = info.split_whitespace().find_map(|field| field.strip_prefix("resp="));
    saw.insert("resp".into(), json!(resp));
    cmd("FLUSHALL").exec(connection)
}

fn values(connection: &mut Connection, saw: &mut Saw) -> RedisResult<()> {
    let binary: Vec<u8> = (0..=255).collect();
    let () = connection.set("binary", &binary)?;
    let got: Vec<u8> = connection.get("binary")?;
    saw.insert("binary".into(), json!(got.iter().map(|byte| format!("{byte:02x}")).collect::<String>()));
    let () = connection.set_ex("large", "x".repeat(100_000), 3600)?;
    saw.insert("large".into(), json!(connection.get::<_, String>("large")?.len()));
    saw.insert("expires".into(), json!(connection.ttl::<_, i64>("large")? > 3540));
    saw.insert("missing".into(), json!(connection.get::<_, Option<String>>("missing")?));
    saw.insert(
        "added".into(),
        json!(cmd("HSET").arg("hash").arg(&["a", "1", "b", "2"]).query::<i64>(connection)?),
    );
    saw.insert("hash".into(), json!(connection.hgetall::<_, BTreeMap<String, String>>("hash")?));
    let scores: i64 = connection.zadd_multiple("zset", &[(1.5, "m"), (2.0, "n")])?;
    saw.insert("scores".into(), json!(scores));
    saw.insert("zset".into(), json!(connection.zrange_withscores::<_, Vec<(String, f64)>>("zset", 0, -1)?));
    saw.insert("wrong_type".into(), refusal(connection.incr("hash", 1)));
    Ok(())
}

fn refusal(reply: RedisResult<Value>) -> serde_json::Value {
    json!(reply.expect_err("it is refused").to_string())
}

fn batches(connection: &mut Connection, saw: &mut Saw) -> RedisResult<()> {
    let mut commands = pipe();
    for _ in 0..1000 {
        commands.incr("counter", 1);
    }
    let replies: Vec<i64> = commands.query(connection)?;
    saw.insert("pipeline".into(), json!([replies.len() as i64, replies.iter().sum::<i64>()]));
    let mut transaction = pipe();
    transaction.atomic().rpush("list", &["a", "b"]).incr("counter", 5).get("counter");
    let (pushed, sum, got): (i64, i64, String) = transaction.query(connection)?;
    saw.insert("transaction".into(), json!([pushed, sum, got]));
    Ok(())
}

fn conflict(client: &Client, connection: &mut Connection, saw: &mut Saw) -> RedisResult<()> {
    let mut own = client.get_connection()?;
    let mut seen = Vec::new();
    for other in [true, false] {
        cmd("WATCH").arg("counter").exec(&mut own)?;
        if other {
            let () = connection.set("counter", "theirs")?;
        }
        let done: Option<Vec<String>> = pipe().atomic().set("counter", "mine").query(&mut own)?;
        seen.push(json!([done, connection.get::<_, String>("counter")?]));
    }
    saw.insert("conflict".into(), json!(seen));
    Ok(())
}

/// Another connection does something once the server shows a client with this command.
fn later(
    client: &Client,
    command: &str,
    act: fn(&mut Connection) -> RedisResult<()>,
) -> JoinHandle<RedisResult<()>> {
    let (client, shown) = (client.clone(), format!("cmd={command}"));
    thread::spawn(move || {
        let mut connection = client.get_connection()?;
        while !cmd("CLIENT").arg("LIST").query::<String>(&mut connection)?.contains(&shown) {
            thread::sleep(Duration::from_millis(1));
        }
        act(&mut connection)
    })
}

fn blocking(client: &Client, connection: &mut Connection, saw: &mut Saw) -> RedisResult<()> {
    let writer = later(client, "blpop", |connection| connection.rpush("queue", "job"));
    saw.insert("blpop".into(), json!(connection.blpop::<_, (String, String)>(&["empty", "queue"], 10.0)?));
    writer.join().expect("it ends")?;
    saw.insert("blpop_nothing".into(), json!(connection.blpop::<_, Option<(String, String)>>("queue", 0.1)?));
    Ok(())
}

fn messages(client: &Client, connection: &mut Connection, saw: &mut Saw) -> RedisResult<()> {
    let (mut first, mut second) = (client.get_connection()?, client.get_connection()?);
    let (mut channels, mut patterns) = (first.as_pubsub(), second.as_pubsub());
    channels.subscribe("news")?;
    patterns.psubscribe("new?")?;
    let mut receivers = 0;
    for number in 0..100 {
        receivers += connection.publish::<_, _, i64>("news", number)?;
    }
    saw.insert("receivers".into(), json!(receivers));
    for (name, from) in [("messages", &mut channels), ("matched", &mut patterns)] {
        from.set_read_timeout(Some(Duration::from_secs(20)))?;
        let mut got = Vec::new();
        for _ in 0..100 {
            let message = from.get_message()?;
            got.push(format!("{}/{}", message.get_channel_name(), message.get_payload::<String>()?));
        }
        saw.insert(name.into(), json!(got.join(" ")));
    }
    Ok(())
}

fn script(connection: &mut Connection, saw: &mut Saw) -> RedisResult<()> {
    cmd("SCRIPT").arg("FLUSH").exec(connection)?;
    let script = redis::Script::new(SCRIPT);
    let by_digest = |value: &str| {
        let mut command = cmd("EVALSHA");
        command.arg(script.get_hash()).arg(1).arg("scripted").arg(value);
        command
    };
    saw.insert("noscript".into(), refusal(by_digest("x").query(connection)));
    let first: Vec<String> = script.key("scripted").arg("one").invoke(connection)?;
    let second: Vec<String> = by_digest("two").query(connection)?;
    saw.insert("script".into(), json!([first, second]));
    Ok(())
}

fn scan(connection: &mut Connection, saw: &mut Saw) -> RedisResult<()> {
    let mut writes = pipe();
    for number in 0..1000 {
        writes.set(format!("scanned:{number}"), number).ignore();
    }
    writes.exec(connection)?;
    let found: RedisResult<BTreeSet<String>> = connection.scan_match::<_, String>("scanned:*")?.collect();
    saw.insert("scanned".into(), json!(found?.len()));
    Ok(())
}

fn stream(client: &Client, connection: &mut Connection, saw: &mut Saw) -> RedisResult<()> {
    let () = connection.xgroup_create_mkstream("stream", "group", "$")?;
    let writer =
        later(client, "xreadgroup", |connection| connection.xadd("stream", "7-1", &[("field", "value")]));
    let options = StreamReadOptions::default().group("group", "consumer").count(10).block(10_000);
    let read: StreamReadReply = connection.xread_options(&["stream"], &[">"], &options)?;
    writer.join().expect("it ends")?;
    let entry = &read.keys[0].ids[0];
    saw.insert("stream".into(), json!([read.keys[0].key, entry.id, entry.get::<String>("field")]));
    let before = pending(connection)?;
    let acknowledged: usize = connection.xack("stream", "group", &["7-1"])?;
    saw.insert("pending".into(), json!([before, acknowledged, pending(connection)?]));
    Ok(())
}

fn pending(connection: &mut Connection) -> RedisResult<usize> {
    let entries: Vec<Value> = connection.xpending_count("stream", "group", "-", "+", 10)?;
    Ok(entries.len())
}
