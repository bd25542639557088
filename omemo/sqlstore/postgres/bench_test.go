//go:build unix && live

package postgres_test

import (
	"fmt"
	"runtime"
	"testing"

	"example.org/omellium/omemo"
	"example.org/omellium/omemo/sqlstore"
)

// BenchmarkAccounts opens many accounts in one process and one database; each
// iteration is a commit of one of them. B/account is what an open account costs
// in memory.
func BenchmarkAccounts(b *testing.B) {
	const accounts = 1000
	url := server.Database(b)
	var stores []*sqlstore.Store
	before := liveHeap()
	for n := range accounts {
		s := open(b, url, fmt.Sprintf("account%d@example.org", n))
		m, err := omemo.NewManager(b.Context(), s, omemo.Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer runtime.KeepAlive(m)
		stores = append(stores, s)
	}
	live := liveHeap() - before
	row := omemo.SessionRow{ID: 1, Peer: omemo.Peer{Version: omemo.V2, Address: omemo.Address{JID: account, Device: 1}}, Record: make([]byte, 351)}
	i := 0
	for b.Loop() {
		row.Record[i%len(row.Record)]++
		if err := stores[i%accounts].Commit(b.Context(), &omemo.Changes{Sessions: []omemo.SessionRow{row}}); err != nil {
			b.Fatal(err)
		}
		i++
	}
	b.ReportMetric(float64(live)/accounts, "B/account")
}

func liveHeap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
