//! The commands of the shadow Redis.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::data::{Data, Item};
use super::redis::{Redis, text};
use super::value::Value;

const OK: Value = Value::Status("OK");

fn wrong_type() -> Value {
    Value::Error("WRONGTYPE Operation against a key holding the wrong kind of value".into())
}

fn not_integer() -> Value {
    Value::Error("ERR value is not an integer or out of range".into())
}

/// Reach into the value of a key as one type; made where it is missing. Returns from the caller on another type.
macro_rules! value_of {
    ($self:ident, $db:expr, $key:expr, $kind:ident, $new:expr) => {
        match &mut $self.item_or($db, $key, || Data::$kind($new)).data {
            Data::$kind(value) => value,
            _ => return wrong_type(),
        }
    };
}

impl Redis {
    /// The value of a key, if it is there.
    fn item(&mut self, db: u16, key: &[u8]) -> Option<&mut Item> {
        let now = self.now_ms();
        let keys = self.dbs.entry(db).or_default();
        if keys.get(key).is_some_and(|item| item.expires.is_some_and(|at| at <= now)) {
            keys.remove(key);
        }
        keys.get_mut(key)
    }

    fn item_or(&mut self, db: u16, key: &[u8], new: impl FnOnce() -> Data) -> &mut Item {
        let _ = self.item(db, key);
        let keys = self.dbs.entry(db).or_default();
        keys.entry(key.to_vec()).or_insert_with(|| Item { data: new(), expires: None })
    }

    fn remove(&mut self, db: u16, key: &[u8]) -> Option<Item> {
        self.item(db, key)?;
        self.dbs.get_mut(&db)?.remove(key)
    }

    fn put(&mut self, db: u16, key: &[u8], item: Item) {
        self.dbs.entry(db).or_default().insert(key.to_vec(), item);
    }

    fn text_of(&mut self, db: u16, key: &[u8]) -> Result<Option<Vec<u8>>, Value> {
        match self.item(db, key).map(|item| &item.data) {
            None => Ok(None),
            Some(Data::Text(text)) => Ok(Some(text.clone())),
            Some(_) => Err(wrong_type()),
        }
    }

    /// Remove a key whose last element went.
    fn tidy(&mut self, db: u16, key: &[u8]) {
        if self.item(db, key).is_some_and(|item| item.data.is_gone()) {
            self.remove(db, key);
        }
    }

    /// Run a command.
    pub(super) fn call(&mut self, db: u16, args: &[Vec<u8>]) -> Value {
        let name = args[0].to_ascii_uppercase();
        self.tries += u64::from(matches!(args[0].as_slice(), b"lpop" | b"rpop" | b"lmpop" | b"lmove"));
        let reply = self.run(&name, db, args);
        for key in args.iter().skip(1).take(2) {
            self.tidy(db, key);
        }
        reply
    }

    fn run(&mut self, name: &[u8], db: u16, args: &[Vec<u8>]) -> Value {
        let drawn =
            matches!(name, b"EVAL" | b"SPOP" | b"INCRBYFLOAT" | b"HINCRBYFLOAT" | b"SETNX" | b"RENAMENX");
        assert!(!(drawn && self.takes_effects_only), "{} got {}", self.name, text(name));
        let key = args.get(1).map_or(&[][..], Vec::as_slice);
        match name {
            b"GET" => match self.text_of(db, key) {
                Ok(found) => found.map_or(Value::Nil, Value::Bulk),
                Err(wrong) => wrong,
            },
            b"GETRANGE" => match self.text_of(db, key) {
                Ok(found) => Value::Bulk(found.unwrap_or_default()),
                Err(wrong) => wrong,
            },
            b"MGET" => {
                let get = |key: &Vec<u8>| match self.text_of(db, key) {
                    Ok(Some(text)) => Value::Bulk(text),
                    _ => Value::Nil,
                };
                Value::Array(args[1..].iter().map(get).collect())
            }
            b"EXISTS" => {
                Value::Integer(args[1..].iter().filter(|key| self.item(db, key).is_some()).count() as i64)
            }
            b"SET" => self.set(db, args),
            b"SETEX" => {
                let expires = self.later(&args[2], 1_000);
                self.put(db, key, Item { data: Data::Text(args[3].clone()), expires });
                OK
            }
            b"SETNX" if self.item(db, key).is_some() => Value::Integer(0),
            b"SETNX" => {
                self.put(db, key, Item { data: Data::Text(args[2].clone()), expires: None });
                Value::Integer(1)
            }
            b"MSET" => {
                for pair in args[1..].chunks_exact(2) {
                    self.put(db, &pair[0], Item { data: Data::Text(pair[1].clone()), expires: None });
                }
                OK
            }
            b"APPEND" => {
                let text = value_of!(self, db, key, Text, Vec::new());
                if text.len() > 200_000 {
                    text.clear();
                }
                text.extend_from_slice(&args[2]);
                Value::Integer(text.len() as i64)
            }
            b"INCR" => self.add(db, key, 1),
            b"INCRBY" => self.add(db, key, text(&args[2]).parse().unwrap_or(0)),
            b"INCRBYFLOAT" => self.add_float(db, args),
            b"GETDEL" => match self.text_of(db, key) {
                Ok(Some(found)) => {
                    self.remove(db, key);
                    Value::Bulk(found)
                }
                Ok(None) => Value::Nil,
                Err(wrong) => wrong,
            },
            b"DEL" => {
                Value::Integer(args[1..].iter().filter(|key| self.remove(db, key).is_some()).count() as i64)
            }
            b"LPUSH" | b"RPUSH" => {
                let list = value_of!(self, db, key, List, VecDeque::new());
                for value in &args[2..] {
                    if name == b"LPUSH" {
                        list.push_front(value.clone());
                    } else {
                        list.push_back(value.clone());
                    }
                }
                Value::Integer(list.len() as i64)
            }
            b"LPOP" | b"RPOP" => self.pop(name == b"LPOP", db, args),
            b"LMPOP" => {
                let n: usize = text(&args[1]).parse().unwrap();
                let first = args[2 + n].eq_ignore_ascii_case(b"LEFT");
                let count = args.get(4 + n).map_or_else(|| b"1".to_vec(), Clone::clone);
                for key in &args[2..2 + n] {
                    if self.item(db, key).is_some() {
                        let popped = self.pop(first, db, &[b"LPOP".to_vec(), key.clone(), count]);
                        self.tidy(db, key);
                        if matches!(popped, Value::Error(_)) {
                            return popped;
                        }
                        return Value::Array(vec![Value::Bulk(key.clone()), popped]);
                    }
                }
                Value::NilArray
            }
            b"LMOVE" => {
                let first = args[3].eq_ignore_ascii_case(b"LEFT");
                match self.pop(first, db, &[b"LPOP".to_vec(), key.to_vec()]) {
                    Value::Bulk(element) => {
                        let list = value_of!(self, db, &args[2], List, VecDeque::new());
                        if args[4].eq_ignore_ascii_case(b"LEFT") {
                            list.push_front(element.clone());
                        } else {
                            list.push_back(element.clone());
                        }
                        Value::Bulk(element)
                    }
                    other => other,
                }
            }
            b"RPOPLPUSH" => self.move_last(db, key, &args[2]),
            b"LRANGE" => match self.item(db, key).map(|item| &item.data) {
                None => Value::Array(Vec::new()),
                Some(Data::List(list)) => Value::Array(list.iter().cloned().map(Value::Bulk).collect()),
                Some(_) => wrong_type(),
            },
            b"SADD" => {
                let set = value_of!(self, db, key, Set, BTreeSet::new());
                Value::Integer(args[2..].iter().filter(|m| set.insert((*m).clone())).count() as i64)
            }
            b"SREM" => {
                let set = value_of!(self, db, key, Set, BTreeSet::new());
                Value::Integer(args[2..].iter().filter(|m| set.remove(*m)).count() as i64)
            }
            b"SMEMBERS" => match self.item(db, key).map(|item| &item.data) {
                None => Value::Set(Vec::new()),
                Some(Data::Set(set)) => Value::Set(set.iter().cloned().collect()),
                Some(_) => wrong_type(),
            },
            b"SPOP" => self.draw(db, args),
            b"HSET" => {
                let hash = value_of!(self, db, key, Hash, BTreeMap::new());
                let set = |p: &&[Vec<u8>]| hash.insert(p[0].clone(), p[1].clone()).is_none();
                Value::Integer(args[2..].chunks_exact(2).filter(set).count() as i64)
            }
            b"HDEL" => {
                let hash = value_of!(self, db, key, Hash, BTreeMap::new());
                Value::Integer(args[2..].iter().filter(|f| hash.remove(*f).is_some()).count() as i64)
            }
            b"HGETALL" => match self.item(db, key).map(|item| &item.data) {
                None => Value::Map(Vec::new()),
                Some(Data::Hash(h)) => Value::Map(h.iter().map(|(k, v)| (k.clone(), v.clone())).collect()),
                Some(_) => wrong_type(),
            },
            b"HINCRBYFLOAT" => {
                let hash = value_of!(self, db, key, Hash, BTreeMap::new());
                let Ok(old) = hash.get(&args[2]).map_or("0", |v| text(v)).parse::<f64>() else {
                    return Value::Error("ERR hash value is not a float".into());
                };
                let sum = format!("{}", old + text(&args[3]).parse::<f64>().unwrap()).into_bytes();
                hash.insert(args[2].clone(), sum.clone());
                Value::Bulk(sum)
            }
            b"RENAME" | b"RENAMENX" => self.rename(name == b"RENAMENX", db, args),
            b"COPY" => self.copy(db, args),
            b"MOVE" => self.move_to(db, args),
            b"PERSIST" => {
                let taken = self.item(db, key).and_then(|item| item.expires.take());
                Value::Integer(i64::from(taken.is_some()))
            }
            b"EXPIRE" | b"PEXPIRE" | b"EXPIREAT" | b"PEXPIREAT" => self.expire(name, db, args),
            b"GETEX" => self.get_and_expire(db, args),
            b"PEXPIRETIME" => Value::Integer(match self.item(db, key) {
                None => -2,
                Some(item) => item.expires.map_or(-1, |at| at as i64),
            }),
            b"DUMP" => self.item(db, key).map_or(Value::Nil, |item| Value::Bulk(item.data.dump())),
            b"RESTORE" => self.restore(db, args),
            b"PUBLISH" => {
                self.published.push(args[2].clone());
                Value::Integer(0)
            }
            b"EVAL" => self.script(db, args),
            b"FLUSHALL" => {
                self.dbs.clear();
                OK
            }
            b"FLUSHDB" => {
                self.dbs.remove(&db);
                OK
            }
            b"SWAPDB" => {
                let (a, b): (u16, u16) = (text(key).parse().unwrap(), text(&args[2]).parse().unwrap());
                if a >= self.databases || b >= self.databases {
                    return Value::Error("ERR DB index is out of range".into());
                }
                if a == b {
                    return OK;
                }
                let (first, second) =
                    (self.dbs.remove(&a).unwrap_or_default(), self.dbs.remove(&b).unwrap_or_default());
                self.dbs.insert(b, first);
                self.dbs.insert(a, second);
                OK
            }
            b"TYPE" => Value::Status(match self.item(db, key).map(|item| &item.data) {
                None => "none",
                Some(Data::Text(_)) => "string",
                Some(Data::List(_)) => "list",
                Some(Data::Set(_)) => "set",
                Some(Data::Hash(_)) => "hash",
            }),
            b"FUNCTION" => self.function(args),
            b"SCAN" => self.scan(db, args),
            b"PTTL" => {
                let now = self.now_ms();
                Value::Integer(match self.item(db, key) {
                    None => -2,
                    Some(item) => item.expires.map_or(-1, |at| (at - now) as i64),
                })
            }
            b"TIME" => {
                let (seconds, us) =
                    (self.now_ms() / 1_000, self.now_ms() % 1_000 * 1_000 + self.now_us % 1_000);
                Value::Array([seconds, us].map(|n| Value::Bulk(n.to_string().into_bytes())).to_vec())
            }
            b"CONFIG" if args.get(2).is_some_and(|name| name.eq_ignore_ascii_case(b"databases")) => {
                Value::Map(vec![(b"databases".to_vec(), self.databases.to_string().into_bytes())])
            }
            b"PING" => Value::Status("PONG"),
            _ => Value::Error(format!("ERR unknown command '{}'", text(&args[0]))),
        }
    }

    /// So many units from now.
    fn later(&self, number: &[u8], unit_ms: u64) -> Option<u64> {
        assert!(self.takes_relative_time, "{} was sent a relative time", self.name);
        Some(self.now_ms() + text(number).parse::<u64>().ok()? * unit_ms)
    }

    fn set(&mut self, db: u16, args: &[Vec<u8>]) -> Value {
        let (mut nx, mut xx, mut get, mut keep, mut expires) = (false, false, false, false, None);
        let mut i = 3;
        while i < args.len() {
            match args[i].to_ascii_uppercase().as_slice() {
                b"NX" => nx = true,
                b"XX" => xx = true,
                b"GET" => get = true,
                b"KEEPTTL" => keep = true,
                b"PXAT" => {
                    i += 1;
                    expires = text(&args[i]).parse().ok();
                }
                unit @ (b"EX" | b"PX") => {
                    i += 1;
                    expires = self.later(&args[i], if unit == b"EX" { 1_000 } else { 1 });
                }
                other => panic!("{} got SET with {}", self.name, text(other)),
            }
            i += 1;
        }
        assert!(!((nx || xx || get) && self.takes_effects_only), "{} got a SET to decide", self.name);
        let old = match self.text_of(db, &args[1]) {
            Err(wrong) if get => return wrong,
            old => old.ok().flatten(),
        };
        let there = self.item(db, &args[1]).is_some();
        if (nx && there) || (xx && !there) {
            return old.filter(|_| get).map_or(Value::Nil, Value::Bulk);
        }
        if keep {
            expires = self.item(db, &args[1]).and_then(|item| item.expires);
        }
        self.put(db, &args[1], Item { data: Data::Text(args[2].clone()), expires });
        if get { old.map_or(Value::Nil, Value::Bulk) } else { OK }
    }

    fn add(&mut self, db: u16, key: &[u8], by: i64) -> Value {
        let number = value_of!(self, db, key, Text, b"0".to_vec());
        let Ok(old) = text(number).parse::<i64>() else { return not_integer() };
        *number = (old + by).to_string().into_bytes();
        Value::Integer(old + by)
    }

    fn add_float(&mut self, db: u16, args: &[Vec<u8>]) -> Value {
        let number = value_of!(self, db, &args[1], Text, b"0".to_vec());
        let Ok(old) = text(number).parse::<f64>() else {
            return Value::Error("ERR value is not a valid float".into());
        };
        *number = format!("{}", old + text(&args[2]).parse::<f64>().unwrap()).into_bytes();
        Value::Bulk(number.clone())
    }

    fn pop(&mut self, first: bool, db: u16, args: &[Vec<u8>]) -> Value {
        let count: Option<usize> = args.get(2).map(|n| text(n).parse().unwrap());
        let Some(item) = self.item(db, &args[1]) else {
            return if count.is_some() { Value::NilArray } else { Value::Nil };
        };
        let Data::List(list) = &mut item.data else { return wrong_type() };
        let mut take = || if first { list.pop_front() } else { list.pop_back() };
        match count {
            None => take().map_or(Value::Nil, Value::Bulk),
            Some(n) => Value::Array((0..n).map_while(|_| take()).map(Value::Bulk).collect()),
        }
    }

    fn move_last(&mut self, db: u16, from: &[u8], to: &[u8]) -> Value {
        let is_list = |item: Option<&mut Item>| item.is_none_or(|item| matches!(item.data, Data::List(_)));
        if !is_list(self.item(db, from)) || !is_list(self.item(db, to)) {
            return wrong_type();
        }
        let Some(Item { data: Data::List(list), .. }) = self.item(db, from) else { return Value::Nil };
        let Some(value) = list.pop_back() else { return Value::Nil };
        let list = value_of!(self, db, to, List, VecDeque::new());
        list.push_front(value.clone());
        Value::Bulk(value)
    }

    fn draw(&mut self, db: u16, args: &[Vec<u8>]) -> Value {
        let count: Option<usize> = args.get(2).map(|n| text(n).parse().unwrap());
        let mut rng = self.rng.fork();
        let members = match self.item(db, &args[1]).map(|item| &mut item.data) {
            None => Vec::new(),
            Some(Data::Set(set)) => (0..count.unwrap_or(1))
                .map_while(|_| {
                    let member = set.iter().nth(rng.index(set.len().max(1))).cloned()?;
                    set.remove(&member);
                    Some(member)
                })
                .collect(),
            Some(_) => return wrong_type(),
        };
        match count {
            Some(_) => Value::Set(members),
            None => members.into_iter().next().map_or(Value::Nil, Value::Bulk),
        }
    }

    fn rename(&mut self, nx: bool, db: u16, args: &[Vec<u8>]) -> Value {
        if self.item(db, &args[1]).is_none() {
            return Value::Error("ERR no such key".into());
        }
        if nx && self.item(db, &args[2]).is_some() {
            return Value::Integer(0);
        }
        if let Some(item) = self.remove(db, &args[1]) {
            self.put(db, &args[2], item);
        }
        if nx { Value::Integer(1) } else { OK }
    }

    fn copy(&mut self, db: u16, args: &[Vec<u8>]) -> Value {
        let has = |word: &[u8]| args[3..].iter().position(|arg| arg.eq_ignore_ascii_case(word));
        let target = has(b"DB").map_or(db, |at| text(&args[at + 4]).parse().unwrap());
        if target >= self.databases {
            return Value::Error("ERR DB index is out of range".into());
        }
        if target == db && args[1] == args[2] {
            return Value::Error("ERR source and destination objects are the same".into());
        }
        let Some(item) = self.item(db, &args[1]).cloned() else { return Value::Integer(0) };
        if has(b"REPLACE").is_none() && self.item(target, &args[2]).is_some() {
            return Value::Integer(0);
        }
        self.put(target, &args[2], item);
        Value::Integer(1)
    }

    fn move_to(&mut self, db: u16, args: &[Vec<u8>]) -> Value {
        let target: u16 = text(&args[2]).parse().unwrap();
        if target >= self.databases {
            return Value::Error("ERR DB index is out of range".into());
        }
        if target == db {
            return Value::Error("ERR source and destination objects are the same".into());
        }
        if self.item(target, &args[1]).is_some() {
            return Value::Integer(0);
        }
        let Some(item) = self.remove(db, &args[1]) else { return Value::Integer(0) };
        self.put(target, &args[1], item);
        Value::Integer(1)
    }

    fn expire(&mut self, name: &[u8], db: u16, args: &[Vec<u8>]) -> Value {
        let n: i64 = text(&args[2]).parse().unwrap();
        let at = match name {
            b"PEXPIREAT" => n,
            b"EXPIREAT" => n * 1_000,
            b"EXPIRE" if n > 0 => self.later(&args[2], 1_000).map_or(0, |at| at as i64),
            b"PEXPIRE" if n > 0 => self.later(&args[2], 1).map_or(0, |at| at as i64),
            _ => 0,
        };
        let now = self.now_ms();
        let Some(item) = self.item(db, &args[1]) else { return Value::Integer(0) };
        let old = item.expires.map_or(i64::MAX, |at| at as i64);
        let refused = args.get(3).is_some_and(|condition| match condition.as_slice() {
            b"NX" => item.expires.is_some(),
            b"XX" => item.expires.is_none(),
            b"GT" => at <= old,
            _ => at >= old,
        });
        if refused {
            return Value::Integer(0);
        }
        item.expires = Some(at.max(0) as u64);
        if at <= now as i64 {
            self.remove(db, &args[1]);
        }
        Value::Integer(1)
    }

    fn get_and_expire(&mut self, db: u16, args: &[Vec<u8>]) -> Value {
        let found = match self.text_of(db, &args[1]) {
            Ok(None) => return Value::Nil,
            Ok(Some(found)) => found,
            Err(wrong) => return wrong,
        };
        let expires = match args.get(2).map(Vec::as_slice) {
            None => return Value::Bulk(found),
            Some(b"PERSIST") => None,
            Some(b"PXAT") => text(&args[3]).parse().ok(),
            Some(b"PX") => self.later(&args[3], 1),
            Some(other) => panic!("{} got GETEX with {}", self.name, text(other)),
        };
        if let Some(item) = self.item(db, &args[1]) {
            item.expires = expires;
        }
        Value::Bulk(found)
    }

    fn restore(&mut self, db: u16, args: &[Vec<u8>]) -> Value {
        let has = |word: &[u8]| args[4..].iter().any(|arg| arg.eq_ignore_ascii_case(word));
        if self.refuses_payloads {
            return Value::Error("ERR DUMP payload version or checksum are wrong".into());
        }
        if self.item(db, &args[1]).is_some() && !has(b"REPLACE") {
            return Value::Error("BUSYKEY Target key name already exists.".into());
        }
        let Some(data) = Data::load(&args[3]) else {
            return Value::Error("ERR Bad data format".into());
        };
        let at: u64 = text(&args[2]).parse().unwrap();
        let at = if at > 0 && !has(b"ABSTTL") { self.later(&args[2], 1).unwrap_or(0) } else { at };
        self.remove(db, &args[1]);
        let expires = (at > 0).then_some(at);
        if expires.is_none_or(|at| at > self.now_ms()) {
            self.put(db, &args[1], Item { data, expires });
        }
        OK
    }

    /// A script: does to its keys what nobody can foresee, and may fail after it has.
    fn script(&mut self, db: u16, args: &[Vec<u8>]) -> Value {
        let keys: usize = text(&args[2]).parse().unwrap();
        for key in args.iter().skip(3).take(keys) {
            let n = self.rng.below(1_000);
            let drawn = format!("drawn{n}").into_bytes();
            let data = match n % 4 {
                0 => {
                    self.remove(db, key);
                    continue;
                }
                1 => Data::Text(drawn),
                2 => Data::List([drawn, b"x".to_vec()].into()),
                _ => continue,
            };
            let expires = self.item(db, key).and_then(|item| item.expires);
            self.put(db, key, Item { data, expires });
        }
        if self.rng.one_in(4) { Value::Error("ERR the script failed".into()) } else { Value::Integer(1) }
    }
}
