// What go-redis sees of the server at a port, as one line of JSON.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

type line map[string]any

func main() {
	options := &redis.Options{Addr: "127.0.0.1:" + os.Args[1]}
	if os.Args[2] != "default" {
		options.Protocol = must(strconv.Atoi(os.Args[2]))
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client := redis.NewClient(options)
	defer client.Close()
	saw := line{"client": "go-redis"}
	for _, step := range []func(context.Context, *redis.Client, line){
		handshake, values, pipeline, transaction, conflict, blocking, messages, script, scan, stream,
	} {
		step(ctx, client, saw)
	}
	fmt.Println(string(must(json.Marshal(saw))))
}

func must[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

func handshake(ctx context.Context, client *redis.Client, saw line) {
	saw["ping"] = must(client.Ping(ctx).Result())
	info := must(client.Do(ctx, "CLIENT", "INFO").Text())
	for _, field := range strings.Fields(info) {
		if value, found := strings.CutPrefix(field, "resp="); found {
			saw["resp"] = value
		}
	}
	must(client.FlushAll(ctx).Result())
}

func values(ctx context.Context, client *redis.Client, saw line) {
	binary := make([]byte, 256)
	for i := range binary {
		binary[i] = byte(i)
	}
	must(client.Set(ctx, "binary", binary, 0).Result())
	saw["binary"] = hex.EncodeToString(must(client.Get(ctx, "binary").Bytes()))
	must(client.Set(ctx, "large", strings.Repeat("x", 100_000), time.Hour).Result())
	saw["large"] = len(must(client.Get(ctx, "large").Result()))
	saw["expires"] = must(client.TTL(ctx, "large").Result()) > 59*time.Minute
	_, err := client.Get(ctx, "missing").Result()
	saw["missing"] = errors.Is(err, redis.Nil)
	saw["added"] = must(client.HSet(ctx, "hash", "a", "1", "b", "2").Result())
	saw["hash"] = must(client.HGetAll(ctx, "hash").Result())
	saw["scores"] = must(client.ZAdd(ctx, "zset", redis.Z{Score: 1.5, Member: "m"}, redis.Z{Score: 2, Member: "n"}).Result())
	saw["zset"] = must(client.ZRangeWithScores(ctx, "zset", 0, -1).Result())
	saw["wrong_type"] = client.Incr(ctx, "hash").Err().Error()
}

func pipeline(ctx context.Context, client *redis.Client, saw line) {
	replies := must(client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for range 1000 {
			pipe.Incr(ctx, "counter")
		}
		return nil
	}))
	var sum int64
	for _, reply := range replies {
		sum += reply.(*redis.IntCmd).Val()
	}
	saw["pipeline"] = []int64{int64(len(replies)), sum}
}

func transaction(ctx context.Context, client *redis.Client, saw line) {
	var pushed, sum *redis.IntCmd
	var got *redis.StringCmd
	must(client.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		pushed = pipe.RPush(ctx, "list", "a", "b")
		sum = pipe.IncrBy(ctx, "counter", 5)
		got = pipe.Get(ctx, "counter")
		return nil
	}))
	saw["transaction"] = []any{pushed.Val(), sum.Val(), got.Val()}
}

func conflict(ctx context.Context, client *redis.Client, saw line) {
	watched := func(other string) string {
		err := client.Watch(ctx, func(tx *redis.Tx) error {
			must(tx.Get(ctx, "counter").Result())
			if other != "" {
				must(client.Set(ctx, "counter", other, 0).Result())
			}
			_, err := tx.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
				pipe.Set(ctx, "counter", "mine", 0)
				return nil
			})
			return err
		}, "counter")
		return fmt.Sprint(err)
	}
	saw["conflict"] = []string{
		watched("theirs"), must(client.Get(ctx, "counter").Result()),
		watched(""), must(client.Get(ctx, "counter").Result()),
	}
}

// Another connection writes once the server shows a client with this command.
func later(ctx context.Context, client *redis.Client, command string, write func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil && !strings.Contains(must(client.ClientList(ctx).Result()), "cmd="+command) {
			time.Sleep(time.Millisecond)
		}
		write()
	}()
	return done
}

func blocking(ctx context.Context, client *redis.Client, saw line) {
	done := later(ctx, client, "blpop", func() { must(client.RPush(ctx, "queue", "job").Result()) })
	saw["blpop"] = must(client.BLPop(ctx, 10*time.Second, "empty", "queue").Result())
	<-done
	_, err := client.Do(ctx, "BLPOP", "queue", "0.1").Result()
	saw["blpop_nothing"] = errors.Is(err, redis.Nil)
}

func messages(ctx context.Context, client *redis.Client, saw line) {
	channels, patterns := client.Subscribe(ctx, "news"), client.PSubscribe(ctx, "new?")
	defer channels.Close()
	defer patterns.Close()
	must(channels.Receive(ctx))
	must(patterns.Receive(ctx))
	var receivers int64
	for i := range 100 {
		receivers += must(client.Publish(ctx, "news", strconv.Itoa(i)).Result())
	}
	saw["receivers"] = receivers
	for name, from := range map[string]*redis.PubSub{"messages": channels, "matched": patterns} {
		var got []string
		for range 100 {
			message := must(from.ReceiveMessage(ctx))
			got = append(got, message.Channel+"/"+message.Payload)
		}
		saw[name] = strings.Join(got, " ")
	}
}

func script(ctx context.Context, client *redis.Client, saw line) {
	must(client.ScriptFlush(ctx).Result())
	append := redis.NewScript("redis.call('RPUSH', KEYS[1], ARGV[1]) return redis.call('LRANGE', KEYS[1], 0, -1)")
	saw["noscript"] = append.EvalSha(ctx, client, []string{"scripted"}, "x").Err().Error()
	first := must(append.Run(ctx, client, []string{"scripted"}, "one").StringSlice())
	second := must(append.EvalSha(ctx, client, []string{"scripted"}, "two").StringSlice())
	saw["script"] = [][]string{first, second}
}

func scan(ctx context.Context, client *redis.Client, saw line) {
	must(client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for i := range 1000 {
			pipe.Set(ctx, fmt.Sprintf("scanned:%d", i), i, 0)
		}
		return nil
	}))
	found := map[string]bool{}
	keys := client.Scan(ctx, 0, "scanned:*", 100).Iterator()
	for keys.Next(ctx) {
		found[keys.Val()] = true
	}
	if keys.Err() != nil {
		panic(keys.Err())
	}
	saw["scanned"] = len(found)
}

func stream(ctx context.Context, client *redis.Client, saw line) {
	must(client.XGroupCreateMkStream(ctx, "stream", "group", "$").Result())
	done := later(ctx, client, "xreadgroup", func() {
		must(client.XAdd(ctx, &redis.XAddArgs{Stream: "stream", ID: "7-1", Values: []string{"field", "value"}}).Result())
	})
	read := must(client.XReadGroup(ctx, &redis.XReadGroupArgs{
		Group: "group", Consumer: "consumer", Streams: []string{"stream", ">"}, Count: 10, Block: 10 * time.Second,
	}).Result())
	<-done
	saw["stream"] = []any{read[0].Stream, read[0].Messages[0].ID, read[0].Messages[0].Values}
	saw["pending"] = []int64{
		must(client.XPending(ctx, "stream", "group").Result()).Count,
		must(client.XAck(ctx, "stream", "group", "7-1").Result()),
		must(client.XPending(ctx, "stream", "group").Result()).Count,
	}
}
