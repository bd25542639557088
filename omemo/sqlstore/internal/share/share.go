// Package share lets several users of one process have one handle of a thing
// that must be opened once only.
package share

import "sync"

// Map holds what is open, by key. The zero value is empty and ready for use.
type Map[K comparable, V any] struct {
	mu   sync.Mutex
	open map[K]*entry[V]
}

type entry[V any] struct {
	value V
	users int
	close func() error
}

// Acquire returns the value of a key, opened by open if nobody else has it. The
// release function gives it back; the last one closes it. Opening and closing
// exclude each other for the whole map: neither may wait for long.
func (m *Map[K, V]) Acquire(key K, open func() (V, func() error, error)) (V, func() error, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.open[key]
	if !ok {
		v, closer, err := open()
		if err != nil {
			return v, nil, err
		}
		e = &entry[V]{value: v, close: closer}
		if m.open == nil {
			m.open = make(map[K]*entry[V])
		}
		m.open[key] = e
	}
	e.users++
	return e.value, sync.OnceValue(func() error { return m.release(key, e) }), nil
}

func (m *Map[K, V]) release(key K, e *entry[V]) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.users--
	if e.users > 0 {
		return nil
	}
	delete(m.open, key)
	return e.close()
}
