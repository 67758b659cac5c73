// A gRPC-Go peer for the transport's tests: `client ADDRESS` runs every scenario against our
// server and prints a line for each; `server` serves the same methods for our client.
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// raw passes messages as they are.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return *v.(*[]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { *v.(*[]byte) = append([]byte(nil), data...); return nil }
func (raw) Name() string                       { return "proto" }

var failed bool

func check(name string, err error) {
	if err != nil {
		failed = true
		fmt.Printf("FAIL %s: %v\n", name, err)
	} else {
		fmt.Printf("ok %s\n", name)
	}
}

func wantStatus(err error, code codes.Code, text string) error {
	s := status.Convert(err)
	if s.Code() != code || s.Message() != text {
		return fmt.Errorf("got %v %q, want %v %q", s.Code(), s.Message(), code, text)
	}
	return nil
}

func payload(size int) []byte {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(i * 7)
	}
	return data
}

func echo(ctx context.Context, conn *grpc.ClientConn, size int) error {
	in, out := payload(size), []byte(nil)
	if err := conn.Invoke(ctx, "/t.T/Echo", &in, &out); err != nil {
		return err
	}
	if !bytes.Equal(in, out) {
		return fmt.Errorf("%d bytes came back as %d others", len(in), len(out))
	}
	return nil
}

func runClient(address string) {
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodec(raw{}), grpc.MaxCallRecvMsgSize(1<<30), grpc.MaxCallSendMsgSize(1<<30)))
	check("dial", err)
	ctx := context.Background()
	for _, size := range []int{0, 1, 100, 16379, 16380, 65536, 1500000} {
		check(fmt.Sprintf("echo %d", size), echo(ctx, conn, size))
	}
	limited, cancel := context.WithTimeout(ctx, 30*time.Second)
	var group sync.WaitGroup
	errs := make(chan error, 4000)
	for worker := 0; worker < 100; worker++ {
		group.Add(1)
		go func() {
			defer group.Done()
			for i := 0; i < 40; i++ {
				var one context.Context = limited
				if i%2 == 0 {
					one = ctx
				}
				errs <- echo(one, conn, (worker*131+i*977)%40000)
			}
		}()
	}
	group.Wait()
	close(errs)
	var first error
	for e := range errs {
		if e != nil {
			first = e
		}
	}
	check("4000 calls, half with a deadline", first)
	cancel()

	var in, out []byte
	err = conn.Invoke(ctx, "/t.T/Fail", &in, &out)
	check("error", wantStatus(err, codes.InvalidArgument, "etcdserver: key is not provided"))
	err = conn.Invoke(ctx, "/t.T/Text", &in, &out)
	check("text", wantStatus(err, codes.Unknown, "100% \u00fcn\u00efcode\n\ttext"))
	err = conn.Invoke(ctx, "/t.T/None", &in, &out)
	check("unknown method", wantStatus(err, codes.Unimplemented, "unknown method None for service t.T"))
	err = conn.Invoke(ctx, "/no.S/None", &in, &out)
	check("unknown service", wantStatus(err, codes.Unimplemented, "unknown service no.S"))
	big := payload(2097153)
	err = conn.Invoke(ctx, "/t.T/Echo", &big, &out)
	check("too large", wantStatus(err, codes.ResourceExhausted, "grpc: received message larger than max (2097153 vs. 2097152)"))
	err = conn.Invoke(ctx, "/t.T/Echo", &in, &out, grpc.UseCompressor(gzip.Name))
	check("compressed", wantStatus(err, codes.Unimplemented, `grpc: Decompressor is not installed for grpc-encoding "gzip"`))
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	err = conn.Invoke(short, "/t.T/Hold", &in, &out)
	check("deadline", wantStatus(err, codes.DeadlineExceeded, "context deadline exceeded"))
	cancel()
	quick, cancel := context.WithCancel(ctx)
	time.AfterFunc(20*time.Millisecond, cancel)
	err = conn.Invoke(quick, "/t.T/Hold", &in, &out)
	check("cancel", wantStatus(err, codes.Canceled, "context canceled"))
	marked := metadata.AppendToOutgoingContext(ctx, "token", "simple.7", "key-bin", "\x00\xff")
	err = conn.Invoke(marked, "/t.T/Token", &in, &out)
	if err == nil && string(out) != "simple.7\x00\xff" {
		err = fmt.Errorf("got %q", out)
	}
	check("metadata", err)
	check("stream", stream(ctx, conn, 1000, 100))
	check("stream of large messages", stream(ctx, conn, 30, 300000))
	check("stream half closed at once", stream(ctx, conn, 0, 0))
	check("after all that", echo(ctx, conn, 10))
	conn.Close()
	if failed {
		os.Exit(1)
	}
}

func stream(ctx context.Context, conn *grpc.ClientConn, count, size int) error {
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/t.T/Echoes")
	if err != nil {
		return err
	}
	go func() {
		for i := 0; i < count; i++ {
			data := payload(size + i)
			s.SendMsg(&data)
		}
		s.CloseSend()
	}()
	for i := 0; ; i++ {
		var got []byte
		err := s.RecvMsg(&got)
		if err == io.EOF {
			if i != count {
				return fmt.Errorf("%d messages of %d", i, count)
			}
			return nil
		}
		if err != nil {
			return err
		}
		if !bytes.Equal(got, payload(size+i)) {
			return fmt.Errorf("message %d differs", i)
		}
	}
}

func serve(_ any, s grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(s)
	md, _ := metadata.FromIncomingContext(s.Context())
	if strings.HasSuffix(method, "/Fail") {
		return status.Error(codes.InvalidArgument, "etcdserver: key is not provided")
	}
	if strings.HasSuffix(method, "/Text") {
		return status.Error(codes.Unknown, "100% \u00fcn\u00efcode\n\ttext")
	}
	for {
		var in []byte
		err := s.RecvMsg(&in)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch {
		case strings.HasSuffix(method, "/Hold"):
			<-s.Context().Done()
			return s.Context().Err()
		case strings.HasSuffix(method, "/Token"):
			in = []byte(md.Get("token")[0])
		}
		if err := s.SendMsg(&in); err != nil {
			return err
		}
		if !strings.HasSuffix(method, "/Echoes") {
			return nil
		}
	}
}

func runServer() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	server := grpc.NewServer(grpc.UnknownServiceHandler(serve), grpc.ForceServerCodec(raw{}),
		grpc.MaxRecvMsgSize(1<<30), grpc.MaxConcurrentStreams(50),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: time.Second}))
	fmt.Println(listener.Addr())
	go func() { // the tests end us by closing our input
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	server.Serve(listener)
}

func main() {
	var _ encoding.Codec = raw{}
	if len(os.Args) == 3 && os.Args[1] == "client" {
		runClient(os.Args[2])
	} else {
		runServer()
	}
}
