// Posts events with the recorder of Flux's controllers, and prints the message of each event that
// was accepted. An event that the recorder gives up on is recorded again, as a controller does with
// its next reconciliation.
//
// Usage: recorder URL PREFIX EVENTS EVENTS_PER_SECOND
package main

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/fluxcd/pkg/runtime/events"
	"github.com/go-logr/logr/funcr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/record"
)

// How many events are recorded at the same time.
const recorders = 8

// statuses notes the status of the last response.
type statuses struct {
	next http.RoundTripper
	last int
}

func (s *statuses) RoundTrip(request *http.Request) (*http.Response, error) {
	s.last = 0
	response, err := s.next.RoundTrip(request)
	if err == nil {
		s.last = response.StatusCode
	}
	return response, err
}

func main() {
	if len(os.Args) != 5 {
		fail("usage: recorder URL PREFIX EVENTS EVENTS_PER_SECOND")
	}
	count, err := strconv.Atoi(os.Args[3])
	check(err)
	rate, err := strconv.Atoi(os.Args[4])
	check(err)

	messages := make(chan string)
	var running sync.WaitGroup
	for range recorders {
		running.Go(func() { recordAll(os.Args[1], messages) })
	}
	tick := time.NewTicker(time.Second / time.Duration(rate))
	for number := range count {
		<-tick.C
		messages <- fmt.Sprintf("%s-%05d", os.Args[2], number)
	}
	close(messages)
	running.Wait()
}

func recordAll(url string, messages <-chan string) {
	scheme := runtime.NewScheme()
	check(corev1.AddToScheme(scheme))
	log := funcr.New(func(_, line string) { fmt.Fprintln(os.Stderr, line) }, funcr.Options{})
	recorder, err := events.NewRecorderForScheme(
		scheme, &record.FakeRecorder{}, log, url, "kustomize-controller")
	check(err)
	seen := &statuses{next: recorder.Client.HTTPClient.Transport}
	recorder.Client.HTTPClient.Transport = seen
	// The recorder reads only the reference of the object.
	object := &corev1.ObjectReference{
		APIVersion: "kustomize.toolkit.fluxcd.io/v1", Kind: "Kustomization",
		Namespace: "apps", Name: "apps", UID: "1c0c2f0e-8f4b-4d3b-9a51-0a6f4bb3c0de",
	}
	for message := range messages {
		for {
			recorder.AnnotatedEventf(object, nil, corev1.EventTypeNormal,
				"ReconciliationSucceeded", "%s", message)
			if seen.last == http.StatusAccepted || seen.last == http.StatusTooManyRequests {
				break
			}
			if seen.last >= 400 && seen.last < 500 {
				fail(fmt.Sprintf("%s: status %d", message, seen.last))
			}
		}
		fmt.Println(message)
	}
}

func check(err error) {
	if err != nil {
		fail(err.Error())
	}
}

func fail(message string) {
	fmt.Fprintln(os.Stderr, message)
	os.Exit(1)
}
