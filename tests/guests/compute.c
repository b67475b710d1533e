/* The four kinds of work of CoreMark (EEMBC), written anew: a linked list that is searched and sorted, a matrix that
 * is multiplied, a state machine that reads numbers, and a CRC over all results. Imports nothing: it ends when it is
 * done, and traps when its result is wrong. */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

enum { ITERATIONS = 4000, LIST = 64, SIDE = 12, EXPECTED = 0x82ea };

static u16 crc16(u16 crc, u32 value, int bits) {
	for (int bit = 0; bit < bits; bit++, value >>= 1)
		crc = (u16)((crc >> 1) ^ (((crc ^ value) & 1) ? 0xa001 : 0));
	return crc;
}

struct node {
	struct node *next;
	int key, place;
};
static struct node nodes[LIST];

static struct node *merge(struct node *a, struct node *b, int by_place) {
	struct node head, *last = &head;
	while (a && b) {
		struct node **least = (by_place ? a->place <= b->place : a->key <= b->key) ? &a : &b;
		last->next = *least;
		last = *least;
		*least = last->next;
	}
	last->next = a ? a : b;
	return head.next;
}

static struct node *sort(struct node *list, int by_place) {
	if (!list || !list->next)
		return list;
	struct node *slow = list, *fast = list->next;
	while (fast && fast->next) {
		slow = slow->next;
		fast = fast->next->next;
	}
	struct node *half = slow->next;
	slow->next = 0;
	return merge(sort(list, by_place), sort(half, by_place), by_place);
}

static u16 lists(u16 crc, u32 seed) {
	for (int i = 0; i < LIST; i++) {
		nodes[i].next = i + 1 < LIST ? &nodes[i + 1] : 0;
		nodes[i].place = i;
		seed = seed * 1103515245u + 12345u;
		nodes[i].key = (int)(seed >> 16 & 0xfff);
	}
	struct node *list = sort(nodes, 0);
	for (int wanted = 0; wanted < 0x1000; wanted += 0x100) {
		struct node *found = list;
		while (found && found->key < wanted)
			found = found->next;
		crc = crc16(crc, found ? (u32)found->place : 0xffff, 16);
	}
	list = sort(list, 1);
	for (; list; list = list->next)
		crc = crc16(crc, (u32)list->key, 16);
	return crc;
}

static int a[SIDE][SIDE], b[SIDE][SIDE], c[SIDE][SIDE];

static u16 matrices(u16 crc, u32 seed) {
	for (int i = 0; i < SIDE; i++)
		for (int j = 0; j < SIDE; j++) {
			seed = seed * 1103515245u + 12345u;
			a[i][j] = (int)(seed >> 20);
			b[i][j] = (int)(seed >> 24);
		}
	for (int i = 0; i < SIDE; i++)
		for (int j = 0; j < SIDE; j++) {
			int sum = 0;
			for (int k = 0; k < SIDE; k++)
				sum += a[i][k] * b[k][j];
			c[i][j] = sum;
		}
	for (int i = 0; i < SIDE; i++)
		for (int j = 0; j < SIDE; j++)
			crc = crc16(crc, (u32)(c[i][j] >> 2), 16);
	return crc;
}

static const char text[] = "5012,-874,+122,35.54400,.1234500,-110.700,+0.64400,5.500e+3,-.123e-2,-87e+832,T0.3e-1F,-T.T++Tq,1T3.4e4z";

enum state { START, SIGN, INTEGER, FRACTION, EXPONENT, POWER, INVALID, STATES };

static enum state step(enum state state, char letter) {
	int digit = letter >= '0' && letter <= '9', sign = letter == '+' || letter == '-';
	switch (state) {
	case START:
		return digit ? INTEGER : sign ? SIGN : letter == '.' ? FRACTION : INVALID;
	case SIGN:
		return digit ? INTEGER : letter == '.' ? FRACTION : INVALID;
	case INTEGER:
		return digit ? INTEGER : letter == '.' ? FRACTION : letter == 'e' ? EXPONENT : INVALID;
	case FRACTION:
		return digit ? FRACTION : letter == 'e' ? EXPONENT : INVALID;
	case EXPONENT:
		return digit || sign ? POWER : INVALID;
	case POWER:
		return digit ? POWER : INVALID;
	default:
		return INVALID;
	}
}

static u16 states(u16 crc, u32 seed) {
	u32 ends[STATES] = {0}, visits[STATES] = {0};
	for (int round = 0; round < 4; round++) {
		enum state state = START;
		for (const char *letter = text; *letter; letter++) {
			if (*letter == ',') {
				ends[state]++;
				state = START;
				continue;
			}
			/* A letter is broken now and then, as on a bad line. */
			seed = seed * 1103515245u + 12345u;
			state = step(state, (seed >> 16 & 63) ? *letter : '?');
			visits[state]++;
		}
	}
	for (int state = 0; state < STATES; state++)
		crc = crc16(crc16(crc, ends[state], 16), visits[state], 16);
	return crc;
}

u32 compute(u32 iterations) {
	u16 crc = 0xffff;
	for (u32 i = 0; i < iterations; i++) {
		crc = lists(crc, i + crc);
		crc = matrices(crc, i + crc);
		crc = states(crc, i + crc);
	}
	return crc;
}

__attribute__((export_name("_start"))) void start(void) {
	if (compute(ITERATIONS) != EXPECTED)
		__builtin_trap();
}
