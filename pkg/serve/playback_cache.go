package serve

import (
	"container/list"
	"sync"
)

// recent remembers values by key, the least recently used going first, so that
// their costs add up to no more than a limit.
type recent[K comparable, V any] struct {
	limit int

	mu    sync.Mutex
	cost  int
	order list.List // of *recentEntry[K, V], the last used in front
	at    map[K]*list.Element
}

type recentEntry[K comparable, V any] struct {
	key   K
	value V
	cost  int
}

func newRecent[K comparable, V any](limit int) *recent[K, V] {
	return &recent[K, V]{limit: limit, at: map[K]*list.Element{}}
}

func (r *recent[K, V]) get(key K) (v V, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	el := r.at[key]
	if el == nil {
		return v, false
	}
	r.order.MoveToFront(el)
	return el.Value.(*recentEntry[K, V]).value, true
}

// getOr is get; what is not there yet is made.
func (r *recent[K, V]) getOr(key K, make func() V, cost int) V {
	r.mu.Lock()
	defer r.mu.Unlock()
	if el := r.at[key]; el != nil {
		r.order.MoveToFront(el)
		return el.Value.(*recentEntry[K, V]).value
	}
	v := make()
	r.add(key, v, cost)
	return v
}

// put remembers a value, or what its cost is now.
func (r *recent[K, V]) put(key K, v V, cost int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.add(key, v, cost)
}

func (r *recent[K, V]) add(key K, v V, cost int) {
	if el := r.at[key]; el != nil {
		r.remove(el)
	}
	r.at[key] = r.order.PushFront(&recentEntry[K, V]{key, v, cost})
	r.cost += cost
	for r.cost > r.limit && r.order.Len() > 1 {
		r.remove(r.order.Back())
	}
}

func (r *recent[K, V]) remove(el *list.Element) {
	e := r.order.Remove(el).(*recentEntry[K, V])
	delete(r.at, e.key)
	r.cost -= e.cost
}
