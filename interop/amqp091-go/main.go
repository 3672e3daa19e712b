// The tutorials and everyday features, through amqp091-go.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const wait = 10 * time.Second

var names atomic.Int64

func unique(name string) string {
	return fmt.Sprintf("%s-%d-%d", name, os.Getpid(), names.Add(1))
}

// failure ends a scenario; main reports it.
type failure struct{ error }

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		panic(failure{err})
	}
}

func expect(found, expected any) {
	if !reflect.DeepEqual(found, expected) {
		panic(failure{fmt.Errorf("found %v, expected %v", found, expected)})
	}
}

func expectClosed(code int, err error) {
	var closed *amqp.Error
	if !errors.As(err, &closed) || closed.Code != code {
		panic(failure{fmt.Errorf("found %v, expected a close with %d", err, code)})
	}
}

func ownQueue(channel *amqp.Channel, arguments amqp.Table) string {
	return must(channel.QueueDeclare("", false, false, true, false, arguments)).Name
}

func publish(channel *amqp.Channel, exchange, key string, message amqp.Publishing) {
	check(channel.PublishWithContext(context.Background(), exchange, key, false, false, message))
}

func body(text string) amqp.Publishing {
	return amqp.Publishing{Body: []byte(text)}
}

// collect takes the next messages of a queue and settles them at once.
func collect(channel *amqp.Channel, queue string, count int) []amqp.Delivery {
	tag := unique("collect")
	deliveries := must(channel.Consume(queue, tag, true, false, false, false, nil))
	var found []amqp.Delivery
	for len(found) < count {
		found = append(found, next(deliveries))
	}
	check(channel.Cancel(tag, false))
	return found
}

func next(deliveries <-chan amqp.Delivery) amqp.Delivery {
	select {
	case delivery, open := <-deliveries:
		if !open {
			panic(failure{errors.New("the deliveries ended")})
		}
		return delivery
	case <-time.After(wait):
		panic(failure{fmt.Errorf("no delivery within %s", wait)})
	}
}

func texts(deliveries []amqp.Delivery) []string {
	found := []string{}
	for _, delivery := range deliveries {
		found = append(found, string(delivery.Body))
	}
	return found
}

func get(channel *amqp.Channel, queue string) amqp.Delivery {
	delivery, ok, err := channel.Get(queue, false)
	check(err)
	if !ok {
		panic(failure{errors.New("the queue is empty")})
	}
	return delivery
}

func workQueue(connection *amqp.Connection) {
	publisher := must(connection.Channel())
	queue := must(publisher.QueueDeclare(unique("work"), true, false, false, false, nil)).Name
	for task := 0; task < 10; task++ {
		publish(publisher, "", queue, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(fmt.Sprint(task))})
	}
	busy := must(connection.Channel())
	check(busy.Qos(1, 0, false))
	expect(string(next(must(busy.Consume(queue, "", false, false, false, false, nil))).Body), "0")
	worker := must(connection.Channel())
	check(worker.Qos(1, 0, false))
	deliveries := must(worker.Consume(queue, "", false, false, false, false, nil))
	for task := 1; task < 10; task++ {
		delivery := next(deliveries)
		expect(string(delivery.Body), fmt.Sprint(task))
		check(delivery.Ack(false))
	}
	must(publisher.QueueDelete(queue, false, false, false))
}

func publishSubscribe(connection *amqp.Connection) {
	channel := must(connection.Channel())
	exchange := unique("logs")
	check(channel.ExchangeDeclare(exchange, "fanout", false, true, false, false, nil))
	queues := []string{ownQueue(channel, nil), ownQueue(channel, nil)}
	for _, queue := range queues {
		check(channel.QueueBind(queue, "", exchange, false, nil))
	}
	publish(channel, exchange, "ignored", body("to all"))
	for _, queue := range queues {
		expect(texts(collect(channel, queue, 1)), []string{"to all"})
	}
}

func routing(connection *amqp.Connection) {
	channel := must(connection.Channel())
	exchange := unique("direct_logs")
	check(channel.ExchangeDeclare(exchange, "direct", false, true, false, false, nil))
	queue := ownQueue(channel, nil)
	for _, severity := range []string{"warning", "error"} {
		check(channel.QueueBind(queue, severity, exchange, false, nil))
	}
	for _, severity := range []string{"info", "warning", "error"} {
		publish(channel, exchange, severity, body(severity))
	}
	expect(texts(collect(channel, queue, 2)), []string{"warning", "error"})
	check(channel.QueueUnbind(queue, "warning", exchange, nil))
	for _, severity := range []string{"warning", "error"} {
		publish(channel, exchange, severity, body(severity))
	}
	expect(texts(collect(channel, queue, 1)), []string{"error"})
}

func topics(connection *amqp.Connection) {
	channel := must(connection.Channel())
	exchange := unique("topic_logs")
	check(channel.ExchangeDeclare(exchange, "topic", false, false, false, false, nil))
	keys := []string{"kern.critical", "kern.info", "cron.critical", "kern", "kern.disk.critical"}
	matching := map[string][]string{
		"#":          keys,
		"kern.*":     {"kern.critical", "kern.info"},
		"*.critical": {"kern.critical", "cron.critical"},
		"kern.#":     {"kern.critical", "kern.info", "kern", "kern.disk.critical"},
	}
	queues := map[string]string{}
	for pattern := range matching {
		queues[pattern] = ownQueue(channel, nil)
		check(channel.QueueBind(queues[pattern], pattern, exchange, false, nil))
	}
	for _, key := range keys {
		publish(channel, exchange, key, body(key))
	}
	for pattern, expected := range matching {
		expect(texts(collect(channel, queues[pattern], len(expected))), expected)
	}
	check(channel.ExchangeDelete(exchange, false, false))
}

func rpc(connection *amqp.Connection) {
	server := must(connection.Channel())
	requests := ownQueue(server, nil)
	calls := must(server.Consume(requests, "", true, false, false, false, nil))
	client := must(connection.Channel())
	for _, replyTo := range []string{ownQueue(client, nil), "amq.rabbitmq.reply-to"} {
		replies := must(client.Consume(replyTo, "", true, false, false, false, nil))
		publish(client, "", requests, amqp.Publishing{ReplyTo: replyTo, CorrelationId: "call", Body: []byte("ping")})
		call := next(calls)
		publish(server, "", call.ReplyTo, amqp.Publishing{CorrelationId: call.CorrelationId, Body: []byte("pong")})
		reply := next(replies)
		expect([]string{reply.CorrelationId, string(reply.Body)}, []string{"call", "pong"})
	}
}

func confirms(connection *amqp.Connection) {
	channel := must(connection.Channel())
	check(channel.Confirm(false))
	queue := ownQueue(channel, nil)
	var pending []*amqp.DeferredConfirmation
	for number := 0; number < 1000; number++ {
		message := amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(fmt.Sprint(number))}
		pending = append(pending, must(channel.PublishWithDeferredConfirmWithContext(context.Background(), "", queue, false, false, message)))
	}
	for _, confirmation := range pending {
		within, cancel := context.WithTimeout(context.Background(), wait)
		expect(must(confirmation.WaitContext(within)), true)
		cancel()
	}
	expect(must(channel.QueueDeclarePassive(queue, false, false, true, false, nil)).Messages, 1000)
}

func mandatoryReturn(connection *amqp.Connection) {
	channel := must(connection.Channel())
	returns := channel.NotifyReturn(make(chan amqp.Return, 1))
	check(channel.PublishWithContext(context.Background(), "", unique("nowhere"), true, false, body("lost")))
	select {
	case returned := <-returns:
		expect(int(returned.ReplyCode), 312)
		expect(returned.ReplyText, "NO_ROUTE")
		expect(string(returned.Body), "lost")
	case <-time.After(wait):
		panic(failure{errors.New("nothing was returned")})
	}
}

func deadLetters(connection *amqp.Connection) {
	channel := must(connection.Channel())
	exchange := unique("dlx")
	check(channel.ExchangeDeclare(exchange, "fanout", false, true, false, false, nil))
	dead := ownQueue(channel, nil)
	check(channel.QueueBind(dead, "", exchange, false, nil))
	source := ownQueue(channel, amqp.Table{"x-dead-letter-exchange": exchange, "x-message-ttl": int32(100)})
	publish(channel, "", source, body("late"))
	late := collect(channel, dead, 1)[0]
	death := late.Headers["x-death"].([]interface{})[0].(amqp.Table)
	expect([]any{death["queue"], death["reason"], death["count"]}, []any{source, "expired", int64(1)})
	publish(channel, "", source, body("bad"))
	check(get(channel, source).Reject(false))
	expect(collect(channel, dead, 1)[0].Headers["x-first-death-reason"], "rejected")
}

func priority(connection *amqp.Connection) {
	channel := must(connection.Channel())
	queue := ownQueue(channel, amqp.Table{"x-max-priority": int32(5)})
	for _, level := range []uint8{0, 5, 3, 9} {
		publish(channel, "", queue, amqp.Publishing{Priority: level, Body: []byte(fmt.Sprint(level))})
	}
	expect(texts(collect(channel, queue, 4)), []string{"5", "9", "3", "0"})
}

func headersExchange(connection *amqp.Connection) {
	channel := must(connection.Channel())
	exchange := unique("headers")
	check(channel.ExchangeDeclare(exchange, "headers", false, true, false, false, nil))
	all, any := ownQueue(channel, nil), ownQueue(channel, nil)
	for queue, match := range map[string]string{all: "all", any: "any"} {
		check(channel.QueueBind(queue, "", exchange, false, amqp.Table{"x-match": match, "format": "pdf", "pages": int32(2)}))
	}
	publish(channel, exchange, "", amqp.Publishing{Headers: amqp.Table{"format": "pdf", "pages": int32(2), "other": true}, Body: []byte("both")})
	publish(channel, exchange, "", amqp.Publishing{Headers: amqp.Table{"format": "pdf", "pages": int32(3)}, Body: []byte("one")})
	publish(channel, exchange, "", amqp.Publishing{Headers: amqp.Table{"format": "zip"}, Body: []byte("none")})
	expect(texts(collect(channel, any, 2)), []string{"both", "one"})
	expect(texts(collect(channel, all, 1)), []string{"both"})
	expect(must(channel.QueueDeclarePassive(all, false, false, true, false, nil)).Messages, 0)
}

func getMessages(connection *amqp.Connection) {
	channel := must(connection.Channel())
	queue := ownQueue(channel, nil)
	_, ok, err := channel.Get(queue, true)
	check(err)
	expect(ok, false)
	for _, text := range []string{"0", "1", "2"} {
		publish(channel, "", queue, body(text))
	}
	message := get(channel, queue)
	expect([]any{string(message.Body), message.MessageCount, message.Redelivered}, []any{"0", uint32(2), false})
	expect(must(channel.QueuePurge(queue, false)), 2)
	expect(must(channel.QueueDelete(queue, false, false, false)), 0)
}

func nackRequeue(connection *amqp.Connection) {
	channel := must(connection.Channel())
	queue := ownQueue(channel, nil)
	for _, text := range []string{"0", "1", "2"} {
		publish(channel, "", queue, body(text))
	}
	get(channel, queue)
	get(channel, queue)
	check(get(channel, queue).Nack(true, true))
	again := []amqp.Delivery{get(channel, queue), get(channel, queue), get(channel, queue)}
	for number, message := range again {
		expect([]any{string(message.Body), message.Redelivered}, []any{fmt.Sprint(number), true})
	}
	check(again[0].Nack(false, false))
	check(again[1].Ack(false))
	check(again[2].Reject(true))
	expect(texts(collect(channel, queue, 1)), []string{"2"})
}

func unsettledReturn(connection *amqp.Connection) {
	keeper := must(connection.Channel())
	queue := ownQueue(keeper, nil)
	for _, text := range []string{"0", "1", "2"} {
		publish(keeper, "", queue, body(text))
	}
	must(keeper.QueueDeclarePassive(queue, false, false, true, false, nil))
	other := must(connection.Channel())
	get(other, queue)
	get(other, queue)
	check(other.Close())
	for number, message := range collect(keeper, queue, 3) {
		expect([]any{string(message.Body), message.Redelivered}, []any{fmt.Sprint(number), number < 2})
	}
}

func exclusiveAutoDelete(connection *amqp.Connection) {
	channel := must(connection.Channel())
	queue := ownQueue(channel, nil)
	stranger := must(amqp.Dial(os.Getenv("AMQP_URL")))
	_, err := must(stranger.Channel()).QueueDeclarePassive(queue, false, false, true, false, nil)
	expectClosed(405, err)
	shared := must(channel.QueueDeclare(unique("auto"), false, true, false, false, nil)).Name
	must(channel.Consume(shared, shared, true, false, false, false, nil))
	check(channel.Cancel(shared, false))
	_, err = channel.QueueDeclarePassive(shared, false, true, false, false, nil)
	expectClosed(404, err)
	check(stranger.Close())
}

func properties(connection *amqp.Connection) {
	channel := must(connection.Channel())
	queue := ownQueue(channel, nil)
	when := time.Unix(1700000000, 0)
	headers := amqp.Table{
		"text": "häuser", "byte": byte(200), "int8": int8(-5), "int16": int16(-300), "int32": int32(7), "int64": int64(1) << 40,
		"float32": float32(1.5), "float64": 2.5, "yes": true, "none": nil, "bytes": []byte{0, 255}, "when": when,
		"decimal": amqp.Decimal{Scale: 2, Value: 12345}, "list": []interface{}{int32(1), "two"},
		"table": amqp.Table{"inner": amqp.Table{"deep": "x"}},
	}
	for _, size := range []int{0, 1, 1024*1024 + 3} {
		sent := amqp.Publishing{
			Headers: headers, ContentType: "text/plain", ContentEncoding: "utf-8", DeliveryMode: amqp.Transient, Priority: 3,
			CorrelationId: "c", ReplyTo: "r", Expiration: "60000", MessageId: "m", Timestamp: when, Type: "t", UserId: "guest",
			AppId: "a", Body: []byte(strings.Repeat("p", size)),
		}
		publish(channel, "", queue, sent)
		found := collect(channel, queue, 1)[0]
		expect(found.Headers, headers)
		expect(len(found.Body), size)
		found.Headers, sent.Headers = nil, nil
		expect(amqp.Publishing{
			ContentType: found.ContentType, ContentEncoding: found.ContentEncoding, DeliveryMode: found.DeliveryMode,
			Priority: found.Priority, CorrelationId: found.CorrelationId, ReplyTo: found.ReplyTo, Expiration: found.Expiration,
			MessageId: found.MessageId, Timestamp: found.Timestamp, Type: found.Type, UserId: found.UserId, AppId: found.AppId,
			Body: found.Body,
		}, sent)
	}
}

func closes(connection *amqp.Connection) {
	name := unique("errors")
	_, err := must(connection.Channel()).QueueDeclarePassive(name, false, false, false, false, nil)
	expectClosed(404, err)
	expectClosed(404, must(connection.Channel()).ExchangeDeclarePassive(name, "direct", false, false, false, false, nil))
	keeper := must(connection.Channel())
	must(keeper.QueueDeclare(name, false, false, true, false, nil))
	_, err = must(connection.Channel()).QueueDeclare(name, false, false, true, false, amqp.Table{"x-max-length": int32(1)})
	expectClosed(406, err)
	_, err = must(connection.Channel()).QueueDeclare("amq.mine", false, false, true, false, nil)
	expectClosed(403, err)
	channel := must(connection.Channel())
	closed := channel.NotifyClose(make(chan *amqp.Error, 1))
	check(channel.Ack(99, false))
	expectClosed(406, <-closed)
	must(keeper.QueueDeclarePassive(name, false, false, true, false, nil))
}

func transactions(connection *amqp.Connection) {
	channel := must(connection.Channel())
	queue := ownQueue(channel, nil)
	check(channel.Tx())
	publish(channel, "", queue, body("undone"))
	check(channel.TxRollback())
	publish(channel, "", queue, body("done"))
	check(channel.TxCommit())
	message := get(channel, queue)
	expect(string(message.Body), "done")
	check(message.Ack(false))
	check(channel.TxCommit())
	_, ok, err := channel.Get(queue, true)
	check(err)
	expect(ok, false)
}

func lengthLimits(connection *amqp.Connection) {
	channel := must(connection.Channel())
	check(channel.Confirm(false))
	outcome := func(queue, text string) bool {
		message := must(channel.PublishWithDeferredConfirmWithContext(context.Background(), "", queue, false, false, body(text)))
		within, cancel := context.WithTimeout(context.Background(), wait)
		defer cancel()
		return must(message.WaitContext(within))
	}
	oldestGoes := ownQueue(channel, amqp.Table{"x-max-length": int32(2)})
	for _, text := range []string{"0", "1", "2"} {
		expect(outcome(oldestGoes, text), true)
	}
	expect(texts(collect(channel, oldestGoes, 2)), []string{"1", "2"})
	refusing := ownQueue(channel, amqp.Table{"x-max-length": int32(1), "x-overflow": "reject-publish"})
	expect(outcome(refusing, "in"), true)
	expect(outcome(refusing, "over"), false)
}

func boundExchanges(connection *amqp.Connection) {
	channel := must(connection.Channel())
	front, back, rest := unique("front"), unique("back"), unique("rest")
	check(channel.ExchangeDeclare(rest, "fanout", false, false, false, false, nil))
	check(channel.ExchangeDeclare(back, "topic", false, false, false, false, nil))
	check(channel.ExchangeDeclare(front, "direct", false, false, false, false, amqp.Table{"alternate-exchange": rest}))
	check(channel.ExchangeBind(back, "a.b", front, false, nil))
	queue, others := ownQueue(channel, nil), ownQueue(channel, nil)
	check(channel.QueueBind(queue, "a.*", back, false, nil))
	check(channel.QueueBind(others, "", rest, false, nil))
	publish(channel, front, "a.b", body("matched"))
	publish(channel, front, "x", body("unmatched"))
	expect(texts(collect(channel, queue, 1)), []string{"matched"})
	expect(texts(collect(channel, others, 1)), []string{"unmatched"})
	for _, exchange := range []string{front, back, rest} {
		check(channel.ExchangeDelete(exchange, false, false))
	}
}

func cancelledByBroker(connection *amqp.Connection) {
	channel := must(connection.Channel())
	queue := must(channel.QueueDeclare(unique("gone"), false, false, false, false, nil)).Name
	cancelled := channel.NotifyCancel(make(chan string, 1))
	must(channel.Consume(queue, "tag", false, false, false, false, nil))
	must(must(connection.Channel()).QueueDelete(queue, false, false, false))
	select {
	case tag := <-cancelled:
		expect(tag, "tag")
	case <-time.After(wait):
		panic(failure{errors.New("the consumer was not told")})
	}
}

// restart: durable things and persistent messages outlive the broker, killed or stopped, and the client learns of the loss.
func restart(*amqp.Connection) {
	broker := must(startOwnBroker())
	defer broker.end()
	for number, end := range []string{"kill", "stop"} {
		connection := must(amqp.Dial(broker.url))
		lost := connection.NotifyClose(make(chan *amqp.Error, 1))
		channel := must(connection.Channel())
		check(channel.Confirm(false))
		must(channel.QueueDeclare("lasting", true, false, false, false, nil))
		message := amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(fmt.Sprint(number))}
		confirmation := must(channel.PublishWithDeferredConfirmWithContext(context.Background(), "", "lasting", true, false, message))
		expect(confirmation.Wait(), true)
		check(broker.order(end))
		select {
		case <-lost:
		case <-time.After(wait):
			panic(failure{errors.New("the client did not see the loss")})
		}
		check(broker.order("start"))
	}
	connection := must(amqp.Dial(broker.url))
	defer connection.Close()
	expect(texts(collect(must(connection.Channel()), "lasting", 2)), []string{"0", "1"})
}

// recovery: the client has none of its own. Its users wait for NotifyClose, connect again and declare everything anew.
func recovery(*amqp.Connection) {
	broker := must(startOwnBroker())
	defer broker.end()
	received := make(chan string, 100)
	connected := make(chan *amqp.Connection, 100)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			connection, err := serve(broker.url, received)
			if err != nil {
				select {
				case <-stop:
					return
				case <-time.After(50 * time.Millisecond):
					continue
				}
			}
			lost := connection.NotifyClose(make(chan *amqp.Error, 1))
			connected <- connection
			select {
			case <-stop:
				connection.Close()
				return
			case <-lost:
			}
		}
	}()
	for _, end := range []string{"", "kill", "stop"} {
		if end != "" {
			check(broker.order(end))
			check(broker.order("start"))
		}
		var connection *amqp.Connection
		select {
		case connection = <-connected:
		case <-time.After(wait):
			panic(failure{errors.New("the client did not come back")})
		}
		channel := must(connection.Channel())
		check(channel.Confirm(false))
		for _, key := range []string{"lasting", "passing"} {
			text := key + " " + end
			message := amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(text)}
			confirmation := must(channel.PublishWithDeferredConfirmWithContext(context.Background(), "topology", key, true, false, message))
			expect(confirmation.Wait(), true)
			awaitText(received, text)
		}
	}
}

// serve connects, declares an exchange with two queues, one of which goes with the broker, and passes on what comes.
func serve(url string, received chan<- string) (connection *amqp.Connection, err error) {
	connection, err = amqp.Dial(url)
	if err != nil {
		return nil, err
	}
	defer func() {
		if ended, ok := recover().(failure); ok {
			connection.Close()
			err = ended
		}
	}()
	channel := must(connection.Channel())
	check(channel.ExchangeDeclare("topology", "direct", true, false, false, false, nil))
	must(channel.QueueDeclare("lasting", true, false, false, false, nil))
	must(channel.QueueDeclare("passing", false, false, true, false, nil))
	for _, queue := range []string{"lasting", "passing"} {
		check(channel.QueueBind(queue, queue, "topology", false, nil))
		deliveries := must(channel.Consume(queue, "", false, false, false, false, nil))
		go func() {
			for delivery := range deliveries {
				received <- string(delivery.Body)
				delivery.Ack(false)
			}
		}()
	}
	return connection, nil
}

// awaitText skips what comes a second time, as its acknowledgement was lost with the broker.
func awaitText(received <-chan string, text string) {
	limit := time.After(wait)
	for {
		select {
		case found := <-received:
			if found == text {
				return
			}
		case <-limit:
			panic(failure{fmt.Errorf("'%s' did not come", text)})
		}
	}
}

// attempt runs a scenario on a connection of its own.
func attempt(scenario func(*amqp.Connection)) (err error) {
	connection, err := amqp.Dial(os.Getenv("AMQP_URL"))
	if err != nil {
		return err
	}
	defer connection.Close()
	defer func() {
		switch ended := recover().(type) {
		case nil:
		case failure:
			err = ended
		default:
			panic(ended)
		}
	}()
	scenario(connection)
	return nil
}

func main() {
	passed, failed := 0, 0
	run := func(name string, scenario func(*amqp.Connection)) {
		if err := attempt(scenario); err != nil {
			failed++
			fmt.Printf("FAIL %s: %v\n", name, err)
		} else {
			passed++
			fmt.Printf("ok %s\n", name)
		}
	}
	run("work queue", workQueue)
	run("publish/subscribe", publishSubscribe)
	run("routing", routing)
	run("topics", topics)
	run("RPC", rpc)
	run("publisher confirms", confirms)
	run("mandatory return", mandatoryReturn)
	run("dead letters and TTL", deadLetters)
	run("priority", priority)
	run("headers exchange", headersExchange)
	run("get", getMessages)
	run("nack and requeue", nackRequeue)
	run("unsettled messages return", unsettledReturn)
	run("exclusive and auto-delete", exclusiveAutoDelete)
	run("properties and bodies", properties)
	run("errors", closes)
	run("transactions", transactions)
	run("length limits", lengthLimits)
	run("bound and alternate exchanges", boundExchanges)
	run("consumer cancelled by broker", cancelledByBroker)
	if os.Getenv("PILLARBOX_BIN") != "" {
		run("restart", restart)
		run("recovery", recovery)
	} else {
		fmt.Println("skip restart: the broker was started by somebody else")
		fmt.Println("skip recovery: the broker was started by somebody else")
	}
	fmt.Printf("%d passed, %d failed\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}
