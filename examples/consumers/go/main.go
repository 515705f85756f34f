// Prints the events of all clusters. An example of a durable consumer in Go.
//
//	go run . NATS_URL NAME [START]
//
// NAME is the durable consumer: a process that starts again continues after the last event that it
// acknowledged. START is a time such as 2026-01-02T15:04:05Z, default: the oldest stored event. It
// counts at the first start only. NATS_CREDS and FILTER name a credentials file and the events to
// read, as `tidings fleet add-tap` prints them.
//
// Run it in this folder: the types are read from ../../../proto.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"os"
	"strings"
	"time"

	"github.com/bufbuild/protocompile"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

func main() {
	ctx := context.Background()
	// Generated types do as well: `buf generate` or `protoc --go_out`.
	source := &protocompile.SourceResolver{ImportPaths: []string{"../../../proto"}}
	compiler := protocompile.Compiler{Resolver: protocompile.WithStandardImports(source)}
	files := must(compiler.Compile(ctx, "tidings/v1/event.proto"))
	types := files[0].Messages()

	options := []nats.Option{nats.MaxReconnects(-1)}
	if file := os.Getenv("NATS_CREDS"); file != "" {
		options = append(options, nats.UserCredentials(file))
	}
	client := must(nats.Connect(os.Args[1], options...))
	events := must(jetstream.New(client))
	consumer, err := events.Consumer(ctx, "EVENTS", os.Args[2])
	if err != nil {
		filter := cmp.Or(os.Getenv("FILTER"), "events.>")
		config := jetstream.ConsumerConfig{Durable: os.Args[2], FilterSubject: filter,
			AckWait: 10 * time.Second}
		if len(os.Args) > 3 {
			start := must(time.Parse(time.RFC3339, os.Args[3]))
			config.DeliverPolicy, config.OptStartTime = jetstream.DeliverByStartTimePolicy, &start
		}
		consumer = must(events.CreateConsumer(ctx, "EVENTS", config))
	}
	messages := must(consumer.Messages(jetstream.PullMaxMessages(100)))
	for {
		message := must(messages.Next())
		event := dynamicpb.NewMessage(types.ByName("Event"))
		if err := proto.Unmarshal(message.Data(), event); err == nil {
			object := field(event, "involved_object").Message()
			// Only the subject proves which cluster published an event, not its body.
			cluster := strings.Split(message.Subject(), ".")[1]
			fmt.Printf("%s %s %s %s/%s: %q\n", field(event, "id"), cluster,
				field(object, "kind"), field(object, "namespace"), field(object, "name"),
				field(event, "message").String())
		}
		// Only now: an event that is not acknowledged is delivered again after AckWait.
		must(0, message.Ack())
	}
}

func field(message protoreflect.Message, name protoreflect.Name) protoreflect.Value {
	return message.Get(message.Descriptor().Fields().ByName(name))
}

func must[T any](value T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return value
}
