package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ownBroker is a broker to restart: broker.py, driven over its standard input.
type ownBroker struct {
	url     string
	command *exec.Cmd
	orders  io.WriteCloser
	answers *bufio.Scanner
}

func startOwnBroker() (*ownBroker, error) {
	command := exec.Command("python3", filepath.Join(os.Getenv("INTEROP"), "common", "broker.py"))
	command.Stderr = os.Stderr
	orders, err := command.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := command.Start(); err != nil {
		return nil, err
	}
	broker := &ownBroker{command: command, orders: orders, answers: bufio.NewScanner(output)}
	if !broker.answers.Scan() {
		return nil, fmt.Errorf("the broker did not start")
	}
	port := strings.TrimPrefix(broker.answers.Text(), "port ")
	broker.url = "amqp://guest:guest@127.0.0.1:" + port + "/%2f"
	return broker, nil
}

// order is kill, stop or start; it returns when that is done.
func (broker *ownBroker) order(word string) error {
	fmt.Fprintln(broker.orders, word)
	if !broker.answers.Scan() {
		return fmt.Errorf("the broker did not %s", word)
	}
	return nil
}

func (broker *ownBroker) end() {
	broker.orders.Close()
	broker.command.Wait()
}
